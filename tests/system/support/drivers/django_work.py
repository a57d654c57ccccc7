"""Django with its default settings: migrations, the ORM, transactions, savepoints, an iterator by a server-side cursor,
threads with connections of their own. Run as a program: `django_work.py PORT`."""

import sys
from concurrent.futures import ThreadPoolExecutor

import django
from django.conf import settings

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": sys.argv[1],
            "NAME": "app",
            "USER": "app",
            "PASSWORD": "secret",
        }
    },
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402  # the settings come first
from django.core.management import call_command  # noqa: E402
from django.db import IntegrityError, connection, transaction  # noqa: E402
from django.db.models import Count  # noqa: E402

call_command("migrate", verbosity=0)


def work(number: int) -> None:
    for round_ in range(10):
        user = User.objects.create(username=f"user-{number}-{round_}")
        user.groups.add(Group.objects.get_or_create(name=f"group-{number}")[0])
        assert User.objects.filter(groups__name=f"group-{number}").count() == round_ + 1
    with transaction.atomic():
        User.objects.filter(username__startswith=f"user-{number}-").update(first_name="known")
        try:
            with transaction.atomic():
                User.objects.create(username=f"user-{number}-0")
        except IntegrityError:
            pass
        else:
            raise AssertionError("a name twice")
    try:
        with transaction.atomic():
            User.objects.all().delete()
            raise LookupError
    except LookupError:
        pass
    connection.close()


with ThreadPoolExecutor(4) as pool:
    list(pool.map(work, range(4)))
assert sum(1 for _ in User.objects.iterator(chunk_size=7)) == 40
assert User.objects.filter(first_name="known").count() == 40
counted = Group.objects.annotate(members=Count("user")).values_list("members", flat=True)
assert sorted(counted) == [10] * 4
call_command("migrate", "auth", "zero", verbosity=0)
call_command("migrate", "contenttypes", "zero", verbosity=0)
with connection.cursor() as cursor:
    cursor.execute("DROP TABLE django_migrations")
print("done")
