"""What the demo prints: the picture with its ports, and the commands to paste."""

from collections.abc import Sequence

from supervisor.cli.demo.commands import Command
from supervisor.cli.demo.configuration import Places

PICTURE = """
 players   --UDP {game:>5}-->  edge: hash of the client's address -> {games}
 browsers  --TCP {https:>5}-->  edge --PROXY v2--> gateway (TLS, JWT, limits)
                               --/api/user/*     X-User-Id--> {user:<17} --+
                               --/api/feed/*     X-User-Id--> {feed:<17} --+--> pooler :{sql} --> primary {primary}
                               --/api/checkout/* X-User-Id--> {payment:<17} --+               \\-> replica {replica}
 streamers --TCP {rtmp:>5}-->  edge -> {ingests}
"""


def picture(places: Places, primary: int, replica: int) -> str:
    """The traffic path with this demo's ports."""
    return PICTURE.format(
        game=places.game,
        https=places.https,
        rtmp=places.rtmp,
        sql=places.sql,
        games=", ".join(places.games),
        ingests=", ".join(places.ingests),
        primary=f":{primary}",
        replica=f":{replica}",
        **{kind: ", ".join(instances) for kind, instances in places.services.items()},
    )


def to_paste(found: Sequence[Command]) -> str:
    """The commands, each under a line that says what it shows."""
    return "\n".join(f"# {number}. {command.title}\n{command.text}\n" for number, command in enumerate(found, 1))
