"""The pages of a preference study.

Which comparison comes next is what the database lacks, so that neither a closed page nor a killed
server loses a rater's place.
"""

import base64
import binascii
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException as AnyHTTPException

from geomem.study.guards import Password, SafeHeaders, small_form
from geomem.study.invitations import InvitationError, Invitations
from geomem.study.plan import ANSWERS, MEDIA, QUESTIONS, Comparison, Study, order_of, sides
from geomem.study.progress import progress_of
from geomem.study.votes import Votes

HERE = Path(__file__).parent
STATIC = ("style.css", "study.js")
KEPT = {"Cache-Control": "private, max-age=86400"}  # media are named by content
NO_ADMIN = "The progress page is off: the server was started without GEOMEM_STUDY_ADMIN."
NOT_SAVED = "Your answers could not be saved just now. Please send them again in a moment."


def make_app(
    folder: Path, study: Study, votes: Votes, invitations: Invitations, *, admin: str | None
) -> FastAPI:
    """Return the application.

    Args:
        folder: Of the study.
        study: Its content.
        votes: Where votes go.
        invitations: Who may vote.
        admin: Password of the progress page; without one there is none.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(SafeHeaders)
    pages = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined
    )
    media = {name: folder / MEDIA / name for name in study.media}
    password = Password(admin) if admin else None

    @lru_cache(maxsize=4096)
    def order(rater: str) -> tuple[Comparison, ...]:
        return order_of(study, rater)

    def page(name: str, *, status: int = 200, **shown: object) -> HTMLResponse:
        text = pages.get_template(name).render(study=study, **shown)
        return HTMLResponse(text, status_code=status)

    async def rater_of(token: str) -> str:
        try:
            return invitations.rater(token)
        except InvitationError as error:
            raise HTTPException(403, str(error)) from None

    def next_of(rater: str) -> Comparison | None:
        done = votes.done(rater)
        return next((each for each in order(rater) if each.name not in done), None)

    Rater = Annotated[str, Depends(rater_of)]
    Form = Annotated[dict[str, str], Depends(small_form)]

    @app.get("/s/{token}")
    def show(rater: Rater) -> HTMLResponse:
        comparison = next_of(rater)
        if comparison is None:
            return page("done.html")
        left, right = sides(comparison, rater)
        return page(
            "compare.html",
            comparison=comparison,
            left=left.video,
            right=right.video,
            number=order(rater).index(comparison) + 1,
            total=len(study.comparisons),
            questions=QUESTIONS,
        )

    @app.post("/s/{token}")
    def vote(token: str, rater: Rater, form: Form) -> Response:
        comparison = study.comparison(form.get("comparison", ""))
        answers = {key: form.get(key, "") for key, _ in QUESTIONS}
        if comparison is None:
            raise HTTPException(422, "This study has no such comparison.")
        if not set(answers.values()) <= set(ANSWERS):
            raise HTTPException(422, "Please answer all four questions.")
        coming = next_of(rater)
        # what was answered before is not counted again: the next page follows
        if comparison == coming:
            left, right = sides(comparison, rater)
            votes.add(rater, comparison.name, (left.method, right.method), answers)
        elif coming is not None and comparison.name not in votes.done(rater):
            raise HTTPException(409, "It is another comparison's turn; please load the page again.")
        return RedirectResponse(f"/s/{token}", status_code=303)

    @app.get("/media/{name}")
    def medium(name: str) -> FileResponse:
        if name not in media:
            raise HTTPException(404, "There is no such file.")
        return FileResponse(media[name], headers=KEPT)

    @app.get("/static/{name}")
    def static(name: str) -> FileResponse:
        if name not in STATIC:
            raise HTTPException(404, "There is no such file.")
        return FileResponse(HERE / "static" / name)

    @app.get("/admin")
    def progress(request: Request) -> HTMLResponse:
        if password is None:
            raise HTTPException(404, NO_ADMIN)
        password.check(_basic(request), request.client.host if request.client else "")
        return page("admin.html", progress=progress_of(study, votes.all()))

    @app.exception_handler(AnyHTTPException)
    def refused(_: Request, error: AnyHTTPException) -> HTMLResponse:
        told = page("message.html", status=error.status_code, text=error.detail)
        told.headers.update(error.headers or {})
        return told

    @app.exception_handler(SQLAlchemyError)
    def not_saved(_: Request, error: SQLAlchemyError) -> HTMLResponse:
        return page("message.html", status=503, text=NOT_SAVED)

    return app


def _basic(request: Request) -> str | None:
    """Return the password of HTTP basic authentication, None where there is none."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
