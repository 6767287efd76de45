"""The mail workflow behind HTTP: uvicorn api:api."""

from fastapi import FastAPI

from app import enqueue_async
from mails import workflow

api = FastAPI()


@api.post("/mails", status_code=202)
async def accept(mails: list[dict[str, str]], day: str) -> dict[str, str]:
    run = await enqueue_async(workflow, {"mails": mails}, key=f"mails of {day}")
    return {"run": run.id}
