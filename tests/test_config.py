"""Settings from flags and from variables: which are taken, which wins, and how faults are told."""

from __future__ import annotations

import os
from typing import Any

import attrs
import certifi
import pytest

from cdp.validation import fields_of
from cleariflow import Config, ConfigError, load_config


def faults(flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> dict[str, str]:
    """The message of each fault by its name."""
    with pytest.raises(ConfigError) as caught:
        load_config(flags or {}, environ or {})
    return {fault.field: fault.message for fault in caught.value.faults}


SETTINGS: list[tuple[str, str, object]] = [
    ("host", "::1", "::1"),
    ("port", "9000", 9000),
    ("open", "true", True),
    ("api_key", "hush-hush", "hush-hush"),
    ("data_dir", "/tmp/data", "/tmp/data"),
    ("workers", "7", 7),
    ("browser", "chromium", "chromium"),
    ("browsers", "3", 3),
    ("pages_ahead", "0", 0),
    ("browser_uses", "0", 0),
    ("browser_memory", "268435456", 2**28),
    ("browser_idle", "60", 60.0),
    ("root_path", "/pictures", "/pictures"),
    ("proxy", "http://anna:hush@10.0.0.1:3128", "http://anna:hush@10.0.0.1:3128"),
    ("max_traffic", "0", 0),
    ("ca_file", certifi.where(), certifi.where()),
    ("queue_limit", "5", 5),
    ("result_ttl", "1.5", 1.5),
    ("disk_budget", "5", 5),
    ("max_body", "1024", 1024),
    ("max_timeout", "0.5", 0.5),
    ("max_pixels", "1000", 1000),
    ("grace", "0", 0.0),
    ("log_format", "json", "json"),
]
LISTS = ("browser_arg", "allow_host", "allow_network")


def test_settings_of_these_tests_are_all_there_are() -> None:
    assert {name for name, _, _ in SETTINGS} | {"proxy_dns", *LISTS} == set(fields_of(Config))


@pytest.mark.parametrize(("name", "text", "value"), SETTINGS)
def test_flag_sets_its_setting(name: str, text: str, value: object) -> None:
    assert load_config({name: text}, {}) == attrs.evolve(load_config({}, {}), **{name: value})


@pytest.mark.parametrize(("name", "text", "value"), SETTINGS)
def test_variable_sets_its_setting(name: str, text: str, value: object) -> None:
    assert getattr(load_config({}, {f"CLEARIFLOW_{name.upper()}": text}), name) == value


@pytest.mark.parametrize(("name", "text", "value"), SETTINGS)
def test_flag_wins_over_variable(name: str, text: str, value: object) -> None:
    variables = {f"CLEARIFLOW_{name.upper()}": "nonsense"} if name not in ("host", "data_dir", "browser") else {}
    assert getattr(load_config({name: text}, variables), name) == value


def test_flag_not_given_leaves_the_variable() -> None:
    assert load_config({"port": None}, {"CLEARIFLOW_PORT": "9000"}).port == 9000


@pytest.mark.parametrize("name", LISTS)
def test_repeated_flag_is_a_list(name: str) -> None:
    assert getattr(load_config({name: ["10.0.0.0/8", "127.0.0.1"]}, {}), name) == ("10.0.0.0/8", "127.0.0.1")


@pytest.mark.parametrize("name", LISTS)
def test_variable_of_a_list_is_split_as_a_shell_does(name: str) -> None:
    config = load_config({}, {f"CLEARIFLOW_{name.upper()}": "10.0.0.0/8 '127.0.0.1'"})
    assert getattr(config, name) == ("10.0.0.0/8", "127.0.0.1")


def test_quoted_switch_keeps_its_blank() -> None:
    config = load_config({}, {"CLEARIFLOW_BROWSER_ARG": "'--lang=en US' --x"})
    assert config.browser_arg == ("--lang=en US", "--x")


@pytest.mark.parametrize("name", LISTS)
def test_list_variable_with_an_open_quote_is_a_fault(name: str) -> None:
    (field,) = faults({}, {f"CLEARIFLOW_{name.upper()}": "'10.0.0.1"})
    assert f"CLEARIFLOW_{name.upper()}" in field


def test_defaults_are_those_of_the_contract() -> None:
    config = load_config({}, {})
    assert config == Config(
        host="127.0.0.1",
        port=8000,
        open=False,
        api_key=None,
        data_dir="./cleariflow-data",
        workers=os.cpu_count() or 1,
        browser=None,
        browsers=1,
        browser_arg=(),
        allow_host=(),
        root_path="",
        allow_network=(),
        ca_file=None,
        proxy=None,
        proxy_dns=False,
        max_traffic=512 * 2**20,
        queue_limit=10_000,
        result_ttl=86_400,
        disk_budget=10 * 2**30,
        max_body=5 * 2**20,
        max_timeout=120,
        max_pixels=64_000_000,
        grace=20,
        log_format="text",
    )


def test_environment_is_the_process_own_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARIFLOW_PORT", "9123")
    assert load_config().port == 9123


def test_other_variables_are_no_settings() -> None:
    assert load_config({}, {"PORT": "x", "CLEARIFLOW": "x", "MY_CLEARIFLOW_PORT": "x"}) == load_config({}, {})


def test_other_flags_are_no_settings() -> None:
    assert load_config({"url": "http://a.b", "output": "x"}, {}) == load_config({}, {})


# ---- Faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[("port", text) for text in ("x", "", "-1", "65536", "8000.0", "80 80")],
        *[("workers", text) for text in ("0", "257", "two")],
        *[("browsers", text) for text in ("0", "65")],
        *[("queue_limit", text) for text in ("0", "1000001", "1e3")],
        *[("result_ttl", text) for text in ("0", "0.9", "nan", "inf", "-1", "x")],
        *[("disk_budget", text) for text in ("0", "-1", "1.5", "10 GiB")],
        *[("max_body", text) for text in ("1023", "5MiB")],
        *[("max_timeout", text) for text in ("0", "-1", "3601", "nan", "inf")],
        *[("max_pixels", text) for text in ("0", "1.5")],
        *[("grace", text) for text in ("-1", "3601", "nan", "x")],
        *[("open", text) for text in ("yes", "", "2")],
        *[("log_format", text) for text in ("xml", "", "JSON")],
        *[("root_path", text) for text in ("/", "x", "/x/", "//x", "/x//y", "/x?y", "/a b", "/ä", "/x\n")],
        *[("browser", text) for text in ("", "\0")],
        *[("data_dir", text) for text in ("", "a\0b")],
        *[("host", text) for text in ("0.0.0.0", "", "::", "192.168.0.1", "example.com", "[::1]")],
    ],
)
def test_faulty_setting_is_named_as_flag_and_variable(name: str, text: str) -> None:
    named = f"--{name.replace('_', '-')} (CLEARIFLOW_{name.upper()})"
    assert list(faults({name: text})) == [named]
    assert list(faults({}, {f"CLEARIFLOW_{name.upper()}": text})) == [named]


@pytest.mark.parametrize("text", ["10.0.0.0/33", "not a host!", "", "http://a.b", "10.0.0.1/8/8"])
def test_faulty_network_is_named(text: str) -> None:
    assert list(faults({"allow_network": ["127.0.0.1", text]})) == ["--allow-network (CLEARIFLOW_ALLOW_NETWORK)"]


@pytest.mark.parametrize("text", ["10.0.0.0/8", "127.0.0.1", "::1", "fe80::/10", "intranet.example", "localhost"])
def test_network_may_be_an_address_a_block_or_a_name(text: str) -> None:
    assert load_config({"allow_network": [text]}, {}).allow_network == (text,)


def test_all_faults_come_at_once() -> None:
    environ = {"CLEARIFLOW_GRACE": "-1", "CLEARIFLOW_NONSENSE": "1"}
    assert set(faults({"port": "x", "workers": "0"}, environ)) == {
        "--port (CLEARIFLOW_PORT)",
        "--workers (CLEARIFLOW_WORKERS)",
        "--grace (CLEARIFLOW_GRACE)",
        "CLEARIFLOW_NONSENSE",
    }


def test_faults_of_fields_and_between_fields_come_together() -> None:
    assert set(faults({"port": "x", "host": "0.0.0.0", "root_path": "/", "allow_network": ["%"]})) == {
        "--port (CLEARIFLOW_PORT)",
        "--host (CLEARIFLOW_HOST)",
        "--root-path (CLEARIFLOW_ROOT_PATH)",
        "--allow-network (CLEARIFLOW_ALLOW_NETWORK)",
    }


@pytest.mark.parametrize(
    ("variable", "meant"),
    [("CLEARIFLOW_PROT", "CLEARIFLOW_PORT"), ("CLEARIFLOW_WORKER", "CLEARIFLOW_WORKERS")],
)
def test_unknown_variable_names_the_nearest(variable: str, meant: str) -> None:
    assert faults({}, {variable: "1"}) == {variable: f"unknown setting; did you mean {meant}?"}


@pytest.mark.parametrize("variable", ["CLEARIFLOW_", "CLEARIFLOW_KEYS"])
def test_variable_of_a_later_issue_is_refused(variable: str) -> None:
    assert list(faults({}, {variable: "1"})) == [variable]


# ---- Authorities -----------------------------------------------------------------------------------------------------


def test_file_of_authorities_that_is_not_there_is_a_fault() -> None:
    assert "cannot be read" in faults({"ca_file": "/nowhere"})["--ca-file (CLEARIFLOW_CA_FILE)"]


# ---- Proxy -----------------------------------------------------------------------------------------------------------


def test_proxy_may_look_names_up() -> None:
    config = load_config({"proxy": "socks5://10.0.0.1:1080", "proxy_dns": "true"}, {})
    assert (config.proxy_dns, config.policy.proxy is not None) == (True, True)


def test_names_are_left_to_no_proxy_where_there_is_none() -> None:
    assert faults({"proxy_dns": "true"}) == {"--proxy-dns (CLEARIFLOW_PROXY_DNS)": "needs --proxy"}


@pytest.mark.parametrize(
    "url", ["ftp://anna:hush@a.b:1", "http://anna:hush@", "anna:hush@a.b:1", "http://anna:hush@a:x"]
)
def test_fault_of_the_proxy_shows_no_credentials(url: str) -> None:
    told = faults({"proxy": url})
    assert list(told) == ["--proxy (CLEARIFLOW_PROXY)"]
    assert "hush" not in str(told)


def test_credentials_of_the_proxy_are_in_no_text_of_the_settings() -> None:
    assert "hush" not in repr(load_config({"proxy": "http://anna:hush@10.0.0.1:3128"}, {}))


@pytest.mark.parametrize(("given", "limit"), [("0", None), ("5", 5)])
def test_traffic_is_limited_unless_zero(given: str, limit: int | None) -> None:
    assert load_config({"max_traffic": given}, {}).policy.max_bytes == limit


# ---- Hosts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_no_open(host: str) -> None:
    assert load_config({"host": host}, {}).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com"])
def test_open_allows_other_hosts(host: str) -> None:
    assert load_config({"host": host, "open": "true"}, {}).host == host


def test_other_host_is_told_about_open() -> None:
    assert "--open" in faults({"host": "0.0.0.0"})["--host (CLEARIFLOW_HOST)"]


@pytest.mark.parametrize("text", ["/a", "/a/b", "/a-b/c.d/~e_f"])
def test_root_path_may_have_parts(text: str) -> None:
    assert load_config({"root_path": text}, {}).root_path == text


# ---- The policy made of it -------------------------------------------------------------------------------------------


def test_policy_refuses_loopback_by_default() -> None:
    assert load_config({}, {}).policy.judge_host("127.0.0.1")


def test_policy_allows_what_allow_network_names() -> None:
    assert load_config({"allow_network": ["127.0.0.0/8"]}, {}).policy.judge_host("127.0.0.1") is None


def test_policy_is_new_each_time() -> None:
    config = load_config({}, {})
    config.policy.own_ports.add(1)
    assert 1 not in config.policy.own_ports


def test_memory_of_browsers_is_shared_by_default() -> None:
    one, four = (load_config({"browsers": number}, {}).browser_limits.memory_bytes for number in ("1", "4"))
    assert one is not None
    assert four == one // 4


def test_limits_of_browsers_can_be_switched_off() -> None:
    limits = load_config({"browser_uses": "0", "browser_idle": "0"}, {}).browser_limits
    assert (limits.uses, limits.idle_s) == (None, None)
