"""Votes of raters in SQLite or PostgreSQL: each is on disk before it is acknowledged.

A rater votes once on a comparison; what comes again, by a double click or a request that is sent
again, changes nothing.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Column,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from geomem.errors import InputError
from geomem.study.ballots import TIE, Ballot
from geomem.study.plan import ANSWERS, QUESTIONS, Study

BUSY = 30  # seconds that a writer waits for another process
META = MetaData()
KEYS = tuple(key for key, _ in QUESTIONS)
VOTES = Table(
    "votes",
    META,
    Column("rater", String(64), primary_key=True),
    Column("comparison", String(64), primary_key=True),
    Column("left_method", String(200), nullable=False),
    Column("right_method", String(200), nullable=False),
    Column("time", String(40), nullable=False),
    *(Column(key, String(5), nullable=False) for key in KEYS),
)
ABOUT = Table("about", META, Column("study", String(64), primary_key=True))
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What a rater said of a comparison.

    Attributes:
        rater: Pseudonym.
        comparison: Its name.
        left_method: Whose video was left.
        right_method: Whose was right.
        answers: Question to one of `ANSWERS`; all questions.
        time: Of the server, ISO 8601, UTC.
    """

    rater: str
    comparison: str
    left_method: str
    right_method: str
    answers: Mapping[str, str]
    time: str


class Votes:
    """The votes of one study."""

    def __init__(self, address: str, study: str) -> None:
        """Open a database; it is made where it is missing.

        Args:
            address: Of SQLAlchemy: `sqlite:///PATH` or `postgresql://...`.
            study: Digest of the study; votes on another one are never mixed in.

        Raises:
            InputError: If it cannot be opened, or holds votes on another study.
        """
        try:
            url = make_url(address)
            shown = url.render_as_string(hide_password=True)
            kind = url.get_backend_name()
        except ArgumentError:
            raise InputError("--database is no address like postgresql://user@host/name") from None
        if kind not in INSERTS:
            raise InputError(f"--database {shown}: only SQLite and PostgreSQL are known here")
        try:
            arguments = {"timeout": BUSY} if kind == "sqlite" else {}
            self._engine = create_engine(url, connect_args=arguments, pool_pre_ping=True)
            if kind == "sqlite":
                event.listen(self._engine, "connect", _set_up)
            META.create_all(self._engine)
            with self._engine.begin() as connection:
                new = INSERTS[kind](ABOUT).values(study=study)
                if connection.scalar(select(ABOUT.c.study)) is None:
                    connection.execute(new.on_conflict_do_nothing())
                known = connection.scalar(select(ABOUT.c.study))
        except (SQLAlchemyError, NoSuchModuleError, ImportError) as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise InputError(f"--database {shown} cannot be opened: {reason}") from None
        if known != study:
            raise InputError(f"{shown} holds votes on another study; name another database")
        # SQLite's writers poll for their turn, which is slow and unfair; threads here queue up.
        self._turn = threading.Lock() if kind == "sqlite" else nullcontext()
        self._insert = INSERTS[kind](VOTES).on_conflict_do_nothing()

    def add(
        self, rater: str, comparison: str, methods: tuple[str, str], answers: Mapping[str, str]
    ) -> bool:
        """Commit a vote; return False if that rater had voted on it, and nothing changed.

        Args:
            rater: Pseudonym.
            comparison: Its name.
            methods: Left and right.
            answers: Question to answer.

        Raises:
            ValueError: If an answer is missing or unknown.
        """
        if set(answers) != set(KEYS) or not set(answers.values()) <= set(ANSWERS):
            raise ValueError(f"answers to all of {KEYS} must be of {ANSWERS}, got {answers}")
        row = {
            "rater": rater,
            "comparison": comparison,
            "left_method": methods[0],
            "right_method": methods[1],
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **answers,
        }
        with self._turn, self._engine.begin() as connection:
            return connection.execute(self._insert, row).rowcount == 1

    def done(self, rater: str) -> set[str]:
        """Return the names of the comparisons that a rater has voted on."""
        asked = select(VOTES.c.comparison).where(VOTES.c.rater == rater)
        with self._engine.connect() as connection:
            return set(connection.scalars(asked))

    def all(self) -> list[Vote]:
        """Return all votes by rater and time."""
        asked = select(VOTES).order_by(VOTES.c.rater, VOTES.c.time, VOTES.c.comparison)
        with self._engine.connect() as connection:
            rows = connection.execute(asked).mappings().all()
        return [
            Vote(
                answers={key: row[key] for key in KEYS},
                **{name: row[name] for name in Vote.__annotations__ if name != "answers"},
            )
            for row in rows
        ]

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _set_up(connection: Any, _: Any) -> None:
    for line in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {line}")


def ballots_of(study: Study, votes: Sequence[Vote]) -> list[Ballot]:
    """Return the lines that votes on a study are."""
    ballots = []
    for vote in votes:
        comparison = study.comparison(vote.comparison)
        assert comparison is not None, f"a vote on {vote.comparison}"
        chosen = {"left": vote.left_method, "right": vote.right_method, "tie": TIE}
        ballots += [
            Ballot(
                rater=vote.rater,
                comparison=vote.comparison,
                clip=comparison.clip,
                method_left=vote.left_method,
                method_right=vote.right_method,
                question=key,
                answer=vote.answers[key],
                chosen=chosen[vote.answers[key]],
                is_check=comparison.check,
                is_repeat=comparison.repeats is not None,
                time=vote.time,
            )
            for key, _ in QUESTIONS
        ]
    return ballots
