"""SQLAlchemy with its defaults: the ORM in threads over psycopg, and in tasks over asyncpg.
Run as a program: `sqlalchemy_work.py PORT`."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import ForeignKey, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

WHERE = f"app:secret@127.0.0.1:{sys.argv[1]}/app"


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "alchemy_author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "alchemy_book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("alchemy_author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


engine = create_engine(f"postgresql+psycopg://{WHERE}")


def work(number: int) -> None:
    for round_ in range(5):
        with Session(engine) as session, session.begin():
            author = Author(name=f"author-{number}-{round_}", books=[Book(title=f"book-{n}") for n in range(20)])
            session.add(author)
            session.flush()
            savepoint = session.begin_nested()
            try:
                session.execute(text("SELECT 1 / 0"))
            except DBAPIError:
                savepoint.rollback()
        with Session(engine) as session:
            found = session.scalars(
                select(Author).where(Author.name == f"author-{number}-{round_}").options(selectinload(Author.books))
            ).one()
            assert len(found.books) == 20
            session.delete(found)  # never committed


async def by_tasks() -> None:
    engine = create_async_engine(f"postgresql+asyncpg://{WHERE}")
    make = async_sessionmaker(engine)

    async def work(number: int) -> None:
        for round_ in range(5):
            async with make() as session, session.begin():
                session.add(Author(name=f"async-{number}-{round_}", books=[Book(title="one")]))
            async with make() as session:
                name = f"async-{number}-{round_}"
                found = await session.scalars(select(Author.name).where(Author.name == name))
                assert found.all() == [name]

    await asyncio.gather(*(work(number) for number in range(8)))
    async with engine.connect() as connection:
        rows = 0
        stream = await connection.stream(text("SELECT * FROM generate_series(1, 1000)"))
        async for _ in stream:
            rows += 1
        assert rows == 1000
    await engine.dispose()


Base.metadata.create_all(engine)
with ThreadPoolExecutor(6) as pool:
    list(pool.map(work, range(6)))
asyncio.run(by_tasks())
with Session(engine) as session:
    assert session.scalar(select(func.count()).select_from(Author)) == 6 * 5 + 8 * 5
    assert session.scalar(select(func.count()).select_from(Book)) == 6 * 5 * 20 + 8 * 5
Base.metadata.drop_all(engine)
engine.dispose()
print("done")
