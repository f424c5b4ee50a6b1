"""Alerts without a gateway: the rules, what the store remembers, spend rates, and webhooks over real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.cli.reach.offline import Nobody
from headgate.control.ingest.recorder import Recorder
from headgate.control.snapshot.setup import set_up
from headgate.control.telemetry import alerts, webhooks
from headgate.control.telemetry.alerting import Alerting
from headgate.control.telemetry.alerts import Alert
from headgate.control.telemetry.book import AlertBook, RaisedAlert, page
from headgate.control.telemetry.delivery import deliver
from headgate.control.telemetry.spend_rate import SpendRates
from headgate.control.telemetry.webhooks import Webhooks
from headgate.model import Account, Spend
from headgate.model.receipt_ids import first_of
from headgate.policy.admission.standings import BudgetStanding, HolderStanding
from headgate.process.boot import AlertSettings, WebhookSettings
from headgate.process.channel import World
from headgate.resources.compiled import Compiled
from headgate.settings import ConfigError, load
from tests.control.journal_writer import SECOND, Writer, closed, opened, run
from tests.control.test_vault import opened as opened_store
from tests.receiver import Receiver, receiver
from tests.waiting import eventually

NOW = 1_795_900_000.0
DAY_NS = 86_400 * SECOND
ALERT = RaisedAlert(
    "0018aa", int(NOW * 1e9), alerts.PARKED, "up/0", "The account up/0 is not used.", {"account": "up/0"}
)


def standing(spent: float, mode: str = "hard", usd: float = 10.0, resets: float | None = NOW + 5) -> HolderStanding:
    alert = next(
        (word for share, word in ((1, "exceeded"), (0.9, "critical"), (0.8, "warning")) if spent >= share * usd), None
    )
    budget = BudgetStanding(usd, "day" if resets else "total", mode, "UTC", spent, 0.0, usd - spent, resets, alert)
    return HolderStanding("token", "laptop", budget=budget)


@pytest.mark.parametrize(
    ("spent", "mode", "refuses", "level"),
    [
        (7.99, "hard", False, 0),
        (7.99, "hard", True, 0),
        (8.0, "hard", False, 80),
        (8.5, "hard", True, 80),
        (9.0, "hard", False, 90),
        (9.5, "hard", True, 100),  # nothing that it could still pay was asked for
        (9.5, "soft", True, 90),
        (10.0, "soft", False, 100),
        (31.0, "soft", False, 100),
    ],
)
def test_budget_levels(spent: float, mode: str, refuses: bool, level: int) -> None:
    found = alerts.of_budget("token:a", standing(spent, mode), refuses=refuses)
    assert (found.level if found else 0) == level
    if found is not None:
        assert found.data["percent"] == level and found.until == NOW + 5
        assert found.message.startswith(f"The token laptop has reached {level} % of its budget: ${spent:.2f} of $10.00")


def test_a_refusal_counts_for_the_budget_that_is_nearest_to_its_end() -> None:
    standings = {"token:a": standing(9.2), "tenant:t": standing(9.9), "group:g": standing(50.0, "soft")}
    assert alerts.nearest_to_its_end((*standings, "token:gone"), standings) == "tenant:t"
    assert alerts.nearest_to_its_end(("group:g", "token:gone"), standings) is None


def test_no_budget_and_a_budget_of_nothing_give_no_alert() -> None:
    assert alerts.of_budget("token:a", HolderStanding("token", "a"), refuses=True) is None
    assert alerts.of_budget("token:a", standing(0.0, usd=0.0), refuses=True) is None


def test_account_spend_levels() -> None:
    account = Account("up/0", spend=Spend(1000, "day", "park"))
    levels = [alerts.of_account_spend(account, spent, NOW) for spent in (799, 800, 900, 1000)]
    assert [one.level if one else 0 for one in levels] == [0, 80, 90, 100]
    assert levels[3] is not None and "it is not used until that ends" in levels[3].message
    assert alerts.of_account_spend(Account("up/0"), 5, NOW) is None


def test_states_that_end_by_themselves_give_no_alert() -> None:
    assert [alerts.of_parked("up/0", state) for state in ("cooling", "denied", "probe", "limited")] == [None] * 4
    assert [one.scope for state in alerts.REASONS if (one := alerts.of_parked("up/0", state))] == [
        "key_refused", "exhausted", "no_key", "spend_limit", "expired",
    ]  # fmt: skip


def test_an_unusual_rate() -> None:
    assert [alerts.is_unusual(500, usual, 5) for usual in (None, 0.0, 101.0, 100.0)] == [False, False, False, True]
    whole = alerts.of_rate(alerts.EVERYTHING, "", 6_000_000_000, 1_000_000_000.0, NOW)
    assert whole.message == "The gateway has spent $6.00 within an hour, 6.0 times its mean hour of $1.00."
    assert alerts.of_rate("tenant:acme", "acme", 5, 1.0, NOW).data["times"] == 5.0


# --------------------------------------------------------------------------------------------------------- the store


def test_an_alert_is_raised_once_per_level_and_scope_across_restarts(database: str) -> None:
    def at(level: int, scope: str = "today", until: float | None = NOW + 100) -> Alert:
        return Alert(alerts.BUDGET, "token:a", f"{level} %", {"percent": level}, scope, level, until)

    async def main() -> None:
        async with opened_store(database) as engine:
            book = AlertBook(engine)
            assert await book.begin(NOW) == []
            made = await book.raise_once(at(90), ["ops", "chat"], NOW)
            assert made is not None and made.pending == ("ops", "chat")
            assert [await book.raise_once(at(level), [], NOW + 1) for level in (80, 90)] == [None, None]
            assert await book.raise_once(at(100), [], NOW + 1) is not None
            assert await book.raise_once(at(80, "tomorrow"), [], NOW + 2) is not None
            assert await book.raise_once(at(100, "ever", None), [], NOW + 2.5) is not None
            await book.settled(made.id, "chat")

            book = AlertBook(engine)  # another life
            assert [(one.id, one.pending) for one in await book.begin(NOW + 3)] == [(made.id, ("ops",))]
            assert await book.raise_once(at(100), [], NOW + 3) is None
            assert await book.raise_once(at(100, "ever", None), [], NOW + 3) is None
            assert await book.raise_once(at(80), [], NOW + 101) is not None  # its time is over
            await book.settled(made.id, "ops")
            assert await AlertBook(engine).begin(NOW + 3) == []
            assert [one.message for one in await page(engine, 3, None)] == ["80 %", "100 %", "80 %"]
            assert len(await page(engine, 9, made.id)) == 0 and (await page(engine, 1, "f"))

            await book.forget(NOW + 100 * 86_400)
            assert [one.message for one in await page(engine, 9, None)] == ["100 %"]  # of the budget without a period
            assert await book.raise_once(at(100, "ever", None), [], NOW + 100 * 86_400) is None

    run(main())


def test_webhooks_that_settle_at_once_are_all_noted(database: str) -> None:
    async def main() -> None:
        async with opened_store(database) as engine:
            book, names = AlertBook(engine), [str(number) for number in range(8)]
            made = await book.raise_once(Alert(alerts.BUDGET, "token:a", "80 %", {}, "", 80, None), names, NOW)
            assert made is not None
            await asyncio.gather(*(book.settled(made.id, name) for name in names[1:]))
            assert (await page(engine, 1, None))[0].pending == ("0",)

    run(main())


def test_an_old_alert_is_not_sent_after_a_restart(database: str) -> None:
    async def main() -> None:
        async with opened_store(database) as engine:
            book = AlertBook(engine)
            await book.raise_once(Alert(alerts.BUDGET, "token:a", "80 %", {}, "", 80, NOW + 10), ["ops"], NOW)
            assert await AlertBook(engine).begin(NOW + 2 * 86_400) == []
            assert (await page(engine, 1, None))[0].pending == ()

    run(main())


def test_a_parked_account_is_reported_again_after_it_was_in_use(database: str) -> None:
    parked = alerts.of_parked("up/0", "dead")
    assert parked is not None

    async def main() -> None:
        async with opened_store(database) as engine:
            book = AlertBook(engine)
            await book.begin(NOW)
            assert await book.raise_once(parked, [], NOW)
            book = AlertBook(engine)
            await book.begin(NOW + 50_000)  # it still is
            assert await book.raise_once(parked, [], NOW + 50_000) is None
            assert book.lasting(alerts.PARKED) == [("up/0", "key_refused")]
            await book.over(alerts.PARKED, "up/0", "key_refused", NOW + 53_600)
            assert book.lasting(alerts.PARKED) == []
            assert await book.raise_once(parked, [], NOW + 53_599) is None
            assert await book.raise_once(parked, [], NOW + 53_601)

    run(main())


# ----------------------------------------------------------------------------------------------------------- the rate


def test_an_unusual_hour_is_reported(database: str, tmp_path: Path) -> None:
    now = time.time_ns()
    settings = AlertSettings(rate_times=5, rate_least=1_000)
    compiled = Compiled(World({}, {}), {}, {}, detect_engines=False, alerting=settings)

    async def main() -> None:
        async with opened_store(database) as engine:
            writer, recorder = Writer(tmp_path / "journal"), Recorder(engine, tmp_path / "journal", 0.02)
            await recorder.start()
            for days in (5, 2, 0):
                at = now - days * DAY_NS
                ident = first_of(at) + f"{days:013x}"
                writer.write(opened(1, id=ident, at=at, grant="g", tenant="acme"))
                writer.write(closed(1, id=ident, at=at, cost=24_000))
            await recorder.catch_up()
            publishing = await set_up(tmp_path, engine, lambda: compiled)
            publishing.publication.link = Nobody()
            await publishing.publication.begin(compiled)
            running = asyncio.create_task(Alerting(engine, publishing, Nobody()).run())
            found = await raised(engine, 3)
            running.cancel()
            assert {one.subject for one in found} == {"gateway", "token:g", "tenant:acme"}
            assert {one.data["times"] for one in found} == {60.0}  # 24,000 within an hour against 48,000 in 120
            await recorder.stop()

    async def raised(engine: AsyncEngine, number: int) -> list[RaisedAlert]:
        while len(found := await page(engine, 9, None)) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return found

    run(main())


def test_spend_rates_compare_the_last_hour_with_the_mean_hour(database: str, tmp_path: Path) -> None:
    now = time.time_ns() // DAY_NS * DAY_NS + DAY_NS // 2  # noon: the last hour is within the day

    def call(number: int, age_ns: int, cost: int, grant: str, tenant: str = "") -> Iterator[Any]:
        at = now - age_ns
        ident = first_of(at) + f"{number:013x}"
        yield opened(1, id=ident, at=at, grant=grant, tenant=tenant)
        yield closed(1, id=ident, at=at, cost=cost)

    async def main() -> None:
        async with opened_store(database) as engine:
            writer, recorder = Writer(tmp_path), Recorder(engine, tmp_path, 0.02)
            await recorder.start()
            for number, days in enumerate(range(1, 6)):  # 24 a day are one an hour
                writer.write(*call(number, days * DAY_NS, 24_000, "steady", "acme"))
            writer.write(*call(10, DAY_NS, 24_000, "young"))
            for number, minutes in enumerate((0, 20, 40, 90), 20):
                writer.write(*call(number, minutes * 60 * SECOND, 2_000, "steady", "acme"))
            writer.write(*call(30, 0, 9_000, "young"))
            writer.write(*call(31, 0, 9_000, "new"))
            await recorder.catch_up()
            rates = SpendRates(engine)
            await rates.begin(now / 1e9)
            rates.take({"cost": 500, "created_at": now, "grant_id": "steady", "tenant": "acme"})
            hours = rates.above(1_000, now / 1e9)
            assert hours == {
                "gateway": 24_500,
                "token:steady": 6_500,
                "tenant:acme": 6_500,
                "token:young": 9_000,
                "token:new": 9_000,
            }
            usual = await rates.usual(hours, now / 1e9, 7)
            steady = pytest.approx(24_000 * 5 / (5 * 24))
            assert usual["token:steady"] == usual["tenant:acme"] == steady
            assert usual["gateway"] == pytest.approx(24_000 * 6 / (5 * 24))
            assert usual["token:young"] is None and usual["token:new"] is None  # a first day does not alarm
            assert rates.above(7_000, now / 1e9).keys() == {"gateway", "token:young", "token:new"}
            assert rates.above(1, now / 1e9 + 3_700) == {}
            await recorder.stop()

    run(main())


# ------------------------------------------------------------------------------------------------------------ webhooks


def sender(
    hooks: list[WebhookSettings], over: list[tuple[str, str]], backoff: tuple[float, ...] = (0.01, 0.02)
) -> Webhooks:
    async def settled(ident: str, name: str) -> None:
        over.append((ident, name))

    return Webhooks(lambda: hooks, settled, backoff)


def for_hooks(*names: str, number: int = 0) -> RaisedAlert:
    return RaisedAlert(f"{number:04}", ALERT.at, ALERT.type, ALERT.subject, ALERT.message, ALERT.data, names)


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


def test_an_alert_is_tried_again_and_given_up(hook: Receiver) -> None:
    over: list[tuple[str, str]] = []

    async def main() -> None:
        sending = sender([WebhookSettings("a", hook.url)], over)
        hook.statuses.extend([503, 302])
        hook.location = hook.url + "-elsewhere"
        sending.send(for_hooks("a"))
        await eventually(lambda: bool(over))
        ((_hook, state),) = sending
        assert (state.delivered, state.given_up, state.waiting) == (1, 0, 0)
        assert [one.path for one in hook.requests] == ["/hook?sig=canary-in-the-url"] * 3  # no redirect was followed
        assert len({one.headers["webhook-id"] for one in hook.requests}) == 1
        hook.statuses.extend([500] * 3)
        sending.send(for_hooks("a", number=1))
        await eventually(lambda: len(over) == 2)
        ((_hook, state),) = sending
        assert (state.delivered, state.given_up) == (1, 1) and state.last is not None and not state.last.ok
        await sending.close()

    asyncio.run(main())


def test_a_receiver_that_is_gone_gets_no_more_until_its_settings_change(hook: Receiver) -> None:
    hooks, over = [WebhookSettings("a", hook.url)], []  # type: ignore[var-annotated]

    async def main() -> None:
        sending = sender(hooks, over)
        hook.statuses.append(410)
        for number in range(3):
            sending.send(for_hooks("a", number=number))
        await eventually(lambda: len(over) == 3)
        assert len(hook.requests) == 1
        hooks[0] = WebhookSettings("a", hook.url + "2")
        sending.send(for_hooks("a", number=3))
        await eventually(lambda: len(hook.requests) == 2)
        hooks.clear()  # the file names it no more
        sending.send(for_hooks("a", number=4))
        await eventually(lambda: len(over) == 5)
        assert len(hook.requests) == 2
        await sending.close()

    asyncio.run(main())


def test_a_dead_webhook_holds_up_no_other_and_its_queue_is_bounded(
    hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "WAITING", 5)
    over: list[tuple[str, str]] = []

    async def main() -> None:
        dead = WebhookSettings("dead", "http://127.0.0.1:1/secret-path?sig=secret-query")
        sending = sender([dead, WebhookSettings("a", hook.url)], over, (3600.0,))
        for number in range(20):
            sending.send(for_hooks("dead", "a", number=number))
            await eventually(lambda number=number: len(hook.requests) == number + 1)
        await eventually(lambda: {one.name: state for one, state in sending}["a"].delivered == 20)
        states = {one.name: state for one, state in sending}
        assert states["dead"].waiting <= 5 and states["dead"].dropped >= 14
        assert states["dead"].last is not None and "secret" not in states["dead"].last.message
        await eventually(lambda: len(over) >= 34)
        assert ("0000", "dead") in over  # the oldest go first
        began = time.monotonic()
        await sending.close()
        assert time.monotonic() - began < 60

    asyncio.run(main())


def test_events_choose_and_slack_gets_a_text(hook: Receiver) -> None:
    slack = WebhookSettings("s", hook.url, (alerts.PARKED,), format="slack")
    sending = sender([slack, WebhookSettings("all", hook.url)], [])
    assert sending.wanting(alerts.PARKED) == ["s", "all"] and sending.wanting(alerts.BUDGET) == ["all"]
    result = asyncio.run(deliver(slack, ALERT))
    assert result.ok and json.loads(hook.requests[0].body) == {"text": ALERT.message}


def test_a_certificate_that_nobody_vouches_for_is_refused() -> None:
    trustme = pytest.importorskip("trustme")
    import socket
    import ssl
    import threading

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _address = listener.accept()
            with connection:
                try:
                    context.wrap_socket(connection, server_side=True).recv(1)
                except (OSError, ssl.SSLError):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        url = f"https://localhost:{listener.getsockname()[1]}/x"
        result = asyncio.run(deliver(WebhookSettings("tls", url), ALERT))
    assert not result.ok and "certificate" in result.message.lower()


# ------------------------------------------------------------------------------------------------- the configuration


def settings_of(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "headgate.yaml"
    file.write_text(f"state_dir: {tmp_path}/state\n{text}")
    return load(str(file), {"HOOK": "whsec_" + "A" * 43 + "="})


def test_webhooks_of_the_file(tmp_path: Path) -> None:
    found = settings_of(
        tmp_path,
        "webhooks:\n"
        "  - {url: 'https://hooks.example.com/T0/B0?x=1', secret: '${HOOK}', events: [account.parked]}\n"
        "  - {name: lan, url: 'http://10.0.0.7:9000/in', format: slack}\n"
        "alerts: {spend_rate: {times: 0, min_usd: 2.5}}\n",
    ).alerting
    first, second = found.webhooks
    assert (first.name, first.host, first.events, len(first.key)) == (
        "hooks.example.com",
        "hooks.example.com",
        ("account.parked",),
        32,
    )
    assert (second.name, second.format, second.key) == ("lan", "slack", b"")
    assert (found.rate_times, found.rate_least) == (0, 2_500_000_000)
    assert "T0" not in repr(found) and "AAA" not in repr(found)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("webhooks: [{url: ftp://x}]", "must be http://HOST"),
        ("webhooks: [{url: 'https://user:canary@x/'}]", "must be http://HOST"),
        ("webhooks: [{url: 'https://x/', secret: canary}]", "openssl rand -base64 32"),
        ("webhooks: [{url: 'https://x/', events: [canary]}]", "webhooks.0.events.0"),
        ("webhooks: [{url: 'https://x/'}, {url: 'https://x/y'}]", "two webhooks are called x"),
        ("webhooks: [{name: a b, url: 'https://x/'}]", "webhooks.0.name"),
        ("alerts: {spend_rate: {times: -1}}", "alerts.spend_rate.times"),
    ],
)
def test_webhooks_that_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings_of(tmp_path, text)
    assert sentence in str(refused.value.problems) and "user:canary" not in str(refused.value.problems)
