"""`/metrics` of a real application: gateways tell the manager, and one that is killed takes nothing back."""

import time

import httpx

from tests.prometheus import fallen, problems_of, total_of

REQUESTS = 20


def scrape(interlock):
    """What a gateway tells; None while the one that was asked is dying, or the manager is away."""
    try:
        answer = interlock.http.get("/metrics")
    except httpx.TransportError:
        return None
    assert answer.status_code in (200, 500, 503), answer.text
    return answer.text if answer.is_success else None


def answered(text):
    return total_of(text, "interlock_requests_total", chain="support-agent", outcome="ok")


def until(interlock, holds, shown, seconds=30):
    """Scrape until `holds`, and see that no count is ever below what was shown before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        text = scrape(interlock)
        if text is not None:
            assert fallen(shown, text) == {}
            shown = text
            if holds(text):
                return text
        time.sleep(0.1)
    raise AssertionError(f"not so within {seconds} s; the last scrape was {shown}")


def ask(interlock, times):
    """Ask until so many answers have come."""
    while times:
        try:
            times -= interlock.chat(max_tokens=2).is_success
        except httpx.TransportError:
            time.sleep(0.05)


# Whichever gateway is asked tells all requests, and the engines' own counts, in good form. With one
# killed -9, no count is ever lower than it was shown, and what comes later is added to it.
def test_counts_outlast_a_gateway(interlock):
    first = until(interlock, lambda _: True, "\n")
    ask(interlock, REQUESTS)
    # A gateway that is not asked tells its counts with its heartbeat; ten scrapes in a row ask both.
    shown = until(interlock, lambda text: answered(text) == answered(first) + REQUESTS, first)
    for _ in range(10):
        shown = until(
            interlock, lambda text: answered(text) == answered(first) + REQUESTS, shown, seconds=0.5
        )
    assert problems_of(shown) == []
    assert total_of(shown, "vllm:generation_tokens_total") > total_of(first, "vllm:generation_tokens_total")
    known = {gateway["id"] for gateway in interlock.status()["gateways"]}
    interlock.replicas("interlock", "Gateway")[0].kill()
    ask(interlock, REQUESTS)
    until(interlock, lambda text: answered(text) >= answered(first) + 2 * REQUESTS, shown)
    # Other tests share these gateways: none that is dead may be listed any more.
    interlock.until(lambda s: len(s["gateways"]) == 2 and {g["id"] for g in s["gateways"]} != known)
