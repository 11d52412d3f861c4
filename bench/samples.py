"""Typical bodies: a job of about 1.5 KB and fal's callback of about the same size."""

import json
from typing import Any

_PROMPT = (
    "A quiet harbour at dawn, seen from a low stone pier: fishing boats in faded red and blue, ropes coiled on wet"
    " planks, gulls above the masts, mist over the water, warm light from the east on the roofs of the old town. "
)


def job_body(number: int, **fields: Any) -> bytes:
    """This function will make the body of a `POST /v1/jobs` for fal, without keeping its files."""
    given = {
        "prompt": f"{number}: {_PROMPT * 5}",
        "image_size": {"width": 1024, "height": 768},
        "seed": 4_815_162_342,
        "output_format": "png",
    }
    job = {
        "provider": "fal",
        "model": "fal-ai/flux-2-pro",
        "input": given,
        "metadata": {"customer": f"c{number % 50}", "order": str(number)},
        "archive": False,
        **fields,
    }
    return json.dumps(job, separators=(",", ":")).encode()


def callback_body(request_id: str) -> bytes:
    """This function will make what fal sends for a job that worked."""
    image = {
        "url": f"https://v3b.fal.media/files/b/koala/{request_id}.png",
        "content_type": "image/png",
        "file_name": f"{request_id}.png",
        "file_size": 1_824_075,
        "width": 1024,
        "height": 768,
    }
    payload = {
        "images": [image],
        "timings": {"inference": 2.1784},
        "seed": 15_860_307_465_884_635_512,
        "has_nsfw_concepts": [False],
        "prompt": _PROMPT * 4,
    }
    said = {"request_id": request_id, "gateway_request_id": request_id, "status": "OK", "payload": payload}
    return json.dumps(said, separators=(",", ":")).encode()
