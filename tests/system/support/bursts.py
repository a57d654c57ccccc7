"""Many requests at the same moment, against the limit `few` of a site: what each was told."""

import http.client
import threading
from collections import Counter
from contextlib import ExitStack

from tests.system.support.clients import Client
from tests.system.support.site import BURST, Site

LOST = 0  # the status of a request whose connection broke


def statuses(site: Site, user: str, requests: int) -> Counter[int]:
    """As many requests of this user at once, each on a connection of its own that was opened before."""
    found: list[int] = []
    headers = site.bearer(user)
    with ExitStack() as stack:
        browsers = [stack.enter_context(site.browser()) for _ in range(requests)]
        gate = threading.Barrier(requests)

        def ask(browser: Client) -> None:
            gate.wait(20)
            try:
                answer = browser.get("/api/few/x", headers)
            except (OSError, http.client.HTTPException):
                found.append(LOST)
                return
            told = answer.status == 429
            # 61: a worker's clock stands still for a round, so one may refuse before the other has admitted.
            right = answer.headers.get("ratelimit-policy") == f'"few";q={BURST};w={BURST * 60}' and (
                1 <= int(answer.headers["retry-after"]) <= 61 and answer.json()["code"] == "limited"
            )
            found.append(answer.status if right or not told else -1)

        threads = [threading.Thread(target=ask, args=(browser,)) for browser in browsers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return Counter(found)
