"""Settings: how values are read, which source wins, and what is refused in which words."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from tierce.core.errors import BadRequest
from tierce.core.limits import WORKERS_MAX
from tierce.core.listen import Listen
from tierce.core.resolve import Given, Resolved, resolve
from tierce.core.rights import ALL_RIGHTS, Right, Token
from tierce.core.settings import SETTINGS, Settings, from_json, shown, to_json

HASH = "sha256-" + "ab" * 32
OTHER_HASH = "sha256-" + "cd" * 32


def resolved(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Mapping[str, object] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Resolved:
    def read_text(path: Path) -> str:
        if texts is None or str(path) not in texts:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return texts[str(path)]

    return resolve(flags or {}, environ or {}, file or {}, "tierce.toml", read_text)


def settings_of(**file: object) -> Settings:
    return resolved(file=file).settings


def refusal(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Mapping[str, object] | None = None,
    texts: Mapping[str, str] | None = None,
) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        resolved(flags, environ, file, texts)
    return caught.value


def test_a_token_in_the_place_of_its_hash_is_not_shown() -> None:
    error = refusal(environ={"TIERCE_TOKENS": "name:read:tierce_open-sesame"})
    assert "sesame" not in error.message + error.hint
    assert "TIERCE_TOKENS" in error.message


# Which source wins


def test_without_sources_everything_is_default() -> None:
    found = resolved()
    assert found.settings == Settings()
    assert set(found.origins.values()) == {"default"}
    assert list(found.origins) == list(SETTINGS)


@pytest.mark.parametrize(
    ("sources", "value", "origin"),
    [
        ("FEC", "flag", "flag --data"),
        ("FE", "flag", "flag --data"),
        ("FC", "flag", "flag --data"),
        ("EC", "env", "environment TIERCE_DATA"),
        ("C", "toml", "file tierce.toml"),
        ("", "data", "default"),
    ],
)
def test_flags_win_over_environment_over_file(sources: str, value: str, origin: str) -> None:
    found = resolved(
        {"data": "flag"} if "F" in sources else {"data": None},
        {"TIERCE_DATA": "env"} if "E" in sources else {"TIERCE_DATA": ""},
        {"data": "toml"} if "C" in sources else {},
    )
    assert found.settings.data == Path(value)
    assert found.origins["data"] == origin


def test_a_false_flag_wins_over_a_true_file() -> None:
    assert resolved({"read_only": False}, file={"read_only": True}).settings.read_only is False


def test_flags_that_were_not_given_count_for_nothing() -> None:
    assert resolved({"listen": (), "data": None, "join": []}).settings == Settings()


def test_a_value_with_its_own_origin_wins_and_keeps_it() -> None:
    found = resolved({"data": Given("there", "environment OTHER_ROOT")}, {"TIERCE_DATA": "here"})
    assert found.settings.data == Path("there")
    assert found.origins["data"] == "environment OTHER_ROOT"


def test_lists_have_commas_in_the_environment() -> None:
    environ = {"TIERCE_LISTEN": "native=h:1, cask=h:2,"}
    listen = resolved(environ=environ).settings.listen
    assert listen == (Listen("native", "h", 1), Listen("cask", "h", 2))


def test_lists_are_arrays_in_the_file() -> None:
    assert settings_of(join=["http://a:1/", "http://b"]).join == ("http://a:1", "http://b")


def test_lists_are_repeated_flags() -> None:
    assert resolved({"join": ("http://a", "http://b")}).settings.join == ("http://a", "http://b")


# Values of single settings


@pytest.mark.parametrize(
    ("name", "given_value", "value"),
    [
        ("data", "/srv/x", Path("/srv/x")),
        ("node_id", "n 1", "n 1"),
        ("workers", 3, 3),
        ("workers", "3", 3),
        ("workers", WORKERS_MAX, WORKERS_MAX),
        ("read_only", True, True),
        ("read_only", "yes", True),
        ("read_only", "OFF", False),
        ("blob_limit_bytes", "1GiB", 1 << 30),
        ("pack_limit_bytes", 0, 0),
        ("reserve_bytes", "auto", None),
        ("reserve_bytes", 0, 0),
        ("min_progress_bytes_per_second", 0, 0),
        ("progress_window_seconds", 3, 3.0),
        ("drain_timeout_seconds", 0, 0.0),
        ("log_format", "JSON", "json"),
        ("log_level", "debug", "debug"),
        ("anonymous_rights", "auto", None),
        ("anonymous_rights", "none", frozenset()),
        ("anonymous_rights", "read", frozenset({Right.READ})),
        ("cask_base_url", "http://h:1/", "http://h:1"),
        ("cask_base_url", "", ""),
        ("sos_servers", ["http://h:1/", "g 1=http://h:1"], ("http://h:1", "g 1=http://h:1")),
        ("tls_key", "", None),
        ("heartbeat_interval_seconds", 0.5, 60.0),
        ("heartbeat_interval_seconds", 1, 1.0),
        ("private", "0.0.0.0:0", Listen("private", "0.0.0.0", 0)),
        ("private", "[::1]:7071", Listen("private", "::1", 7071)),
        ("advertise", "", ""),
        ("advertise", "node-1.example.org:7071", "node-1.example.org:7071"),
        ("join", ["h:1", "http://h:2/", "[0::1]:3"], ("h:1", "http://h:2", "[::1]:3")),
        ("join", [], ()),
        ("discover", True, True),
        ("replication", "auto", 0),
        ("replication", 1, 1),
        ("replication", "32", 32),
        ("zone", "", ""),
        ("zone", " rack-1.b_c ", "rack-1.b_c"),
        ("weight", 2, 2.0),
        ("weight", "0.05", 0.05),
        ("weight", 100.0, 100.0),
        ("ring_points", 16, 16),
        ("down_grace_seconds", 0, 0.0),
        ("down_grace_seconds", "5m", 300.0),
        ("heal_bytes_per_second", 0, 0),
        ("heal_bytes_per_second", "10MiB", 10 << 20),
        ("scrub_bytes_per_second", 1, 1),
        ("scrub_interval_seconds", 0, 0.0),
        ("scrub_interval_seconds", "2m", 120.0),
    ],
)
def test_value_is_read(name: str, given_value: object, value: object) -> None:
    found = getattr(settings_of(**{name: given_value}), name)
    assert found == value
    assert type(found) is type(value) or isinstance(value, Path)


@pytest.mark.parametrize(
    ("name", "given_value", "hint"),
    [
        ("data", "", "directory"),
        ("data", "a\0b", "directory"),
        ("data", "\udc80", "Rename"),
        ("data", 5, "quotes"),
        ("node_id", "a/b", "slash"),
        ("node_id", "a\nb", "control"),
        ("node_id", " a", "space"),
        ("node_id", "n" * 256, "255"),
        ("listen", [], "at least 1"),
        ("listen", "native=h:1", "array"),
        ("listen", [7070], "quotes"),
        ("listen", ["native=h:1", "native=h:1"], "one"),
        ("listen", ["native=h:1", "cask=h:1"], "port of its own"),
        ("workers", 0, "1 to 256"),
        ("workers", WORKERS_MAX + 1, "1 to 256"),
        ("workers", "many", "auto"),
        ("workers", True, "digits"),
        ("workers", "9" * 10_000, "digits"),
        ("read_only", "maybe", "true or false"),
        ("read_only", 1, "true or false"),
        ("blob_limit_bytes", 0, "from 1 up"),
        ("blob_limit_bytes", 1 << 70, "up"),
        ("blob_limit_bytes", "5G", "5GiB"),
        ("pack_limit_bytes", "17MiB", "16MiB"),
        ("progress_window_seconds", 0, "0.001"),
        ("log_format", "jsn", "Did you mean json?"),
        ("log_level", 5, "quotes"),
        ("tokens", [f"a:read:{HASH}", f"a:read:{OTHER_HASH}"], "token new"),
        ("tokens", [f"a:read:{HASH}", f"b:read:{HASH}"], "token new"),
        ("tokens", [5], "quotes"),
        ("anonymous_rights", "raed", "none or auto"),
        ("replication", 0, "1 to 32. Or write auto."),
        ("replication", 33, "1 to 32. Or write auto."),
        ("replication", "some", "auto"),
        ("max_replication", -1, "from 0 up"),
        ("cask_base_url", "h:1", "http://"),
        ("sos_servers", ["h:1"], "http://"),
        ("sos_servers", ["=http://h:1"], "GROUP=URL"),
        ("sos_servers", ["a,b=http://h:1"], "GROUP=URL"),
        ("sos_servers", ["http://h:1/a=http://b"], "GROUP=URL"),
        ("cask_base_url", "ftp://h", "http://"),
        ("cask_base_url", "http://", "http://"),
        ("cask_base_url", "http://h:x", "http://"),
        ("cask_base_url", "http://h/?a", "http://"),
        ("cask_base_url", "http://u:p@h", "http://"),
        ("cask_base_url", "http://h/a b", "http://"),
        ("join", ["127.0.0.1"], "HOST:PORT"),
        ("join", ["127.0.0.1:0"], "port of the other node"),
        ("join", ["ftp://h:1"], "http://"),
        ("join", "h:1", "array"),
        ("join", ["h:1", "h:1"], "Drop one"),
        ("private", "7071", "HOST:PORT"),
        ("private", "native=h:1", "HOST:PORT"),
        ("private", "", "HOST:PORT"),
        ("advertise", "h:65536", "0 to 65535"),
        ("discover", "perhaps", "true or false"),
        ("zone", "rack 1", "letters"),
        ("zone", "r" * 65, "64"),
        ("weight", 0, "0.05 to 100"),
        ("weight", 101, "0.05 to 100"),
        ("weight", "heavy", "1 or 0.5"),
        ("ring_points", 0, "1 to 4096"),
        ("ring_points", 4097, "1 to 4096"),
        ("down_grace_seconds", -1, "seconds"),
        ("heal_bytes_per_second", "fast", "64KiB"),
        ("scrub_bytes_per_second", 0, "from 1 up"),
        ("tls_certificate", "cert.pem", "Set both"),
        ("tls_key", "key.pem", "Set both"),
    ],
)
def test_bad_value_is_refused(name: str, given_value: object, hint: str) -> None:
    error = refusal(file={name: given_value})
    assert name in error.message
    assert "from file tierce.toml" in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("flags", "environ", "origin"),
    [
        ({"blob_limit_bytes": "5GX"}, {}, "from flag --blob-limit-bytes"),
        ({}, {"TIERCE_BLOB_LIMIT_BYTES": "5GX"}, "from environment TIERCE_BLOB_LIMIT_BYTES"),
        ({"blob_limit_bytes": Given("5GX", "environment OTHER")}, {}, "from environment OTHER"),
    ],
)
def test_a_refusal_names_setting_origin_and_value(
    flags: dict[str, object], environ: dict[str, str], origin: str
) -> None:
    message = refusal(flags, environ).message
    assert message == f"blob_limit_bytes, {origin}: '5GX' is not a size"


def test_max_replication_is_raised_to_replication() -> None:
    assert settings_of(replication=3, max_replication=2).max_replication == 3
    assert settings_of(replication=3).max_replication == 3
    assert settings_of(replication=3, max_replication=5).max_replication == 5


def test_replication_is_automatic_unless_it_is_set() -> None:
    assert (settings_of().replication, settings_of().max_replication) == (0, 0)
    assert settings_of(max_replication=4).max_replication == 4
    assert shown(Settings())["replication"] == "auto"
    assert shown(Settings(replication=2))["replication"] == "2"


def test_a_node_speaks_to_others_on_loopback_unless_told_otherwise() -> None:
    assert Settings().private == Listen("private", "127.0.0.1", 7071)
    assert shown(Settings())["private"] == "127.0.0.1:7071"
    assert not Settings().discover


def test_two_doors_may_both_ask_for_a_free_port() -> None:
    assert len(settings_of(listen=["native=h:0", "cask=h:0"]).listen) == 2


def test_anonymous_rights_in_force_depend_on_tokens() -> None:
    token = Token.parse(f"a:read:{HASH}")
    assert Settings().anonymous_rights_in_force == ALL_RIGHTS
    assert Settings(tokens=(token,)).anonymous_rights_in_force == frozenset()
    reading = frozenset({Right.READ})
    assert Settings(tokens=(token,), anonymous_rights=reading).anonymous_rights_in_force == reading
    assert Settings(anonymous_rights=frozenset()).anonymous_rights_in_force == frozenset()


# Unknown names


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("worker", "Did you mean workers?"),
        ("blob-limit-bytes", "Did you mean blob_limit_bytes?"),
        ("zzz", "tierce config"),
    ],
)
def test_an_unknown_key_of_the_file_is_refused(key: str, hint: str) -> None:
    error = refusal(file={key: 1})
    assert key in error.message
    assert "tierce.toml" in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("TIERCE_WORKER", "Did you mean TIERCE_WORKERS?"),
        ("TIERCE_ZZZ", "docs/settings.md"),
        ("TIERCE_PORT_7070_TCP_ADDR", "enableServiceLinks"),
        ("TIERCE_SERVICE_HOST", "enableServiceLinks"),
    ],
)
def test_an_unknown_variable_is_refused(name: str, hint: str) -> None:
    error = refusal(environ={name: "1"})
    assert name in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    "name", ["TIERCE_CONFIG", "TIERCE_URL", "TIERCE_TOKEN", "TIERCE_TEST_SEED", "PATH", "tierce_x"]
)
def test_variables_that_are_no_settings_are_left_alone(name: str) -> None:
    assert resolved(environ={name: "1"}).settings == Settings()


# The cluster secret


def test_the_secret_comes_from_the_environment() -> None:
    found = resolved(environ={"TIERCE_CLUSTER_SECRET": "sesame"})
    assert found.settings.cluster_secret == "sesame"
    assert found.origins["cluster_secret"] == "environment TIERCE_CLUSTER_SECRET"


def test_the_secret_comes_from_the_named_file() -> None:
    found = resolved({"cluster_secret_file": "/s"}, texts={"/s": " sesame\n"})
    assert found.settings.cluster_secret == "sesame"
    assert found.origins["cluster_secret"] == "file /s"


def test_the_secret_comes_with_an_origin_of_its_own() -> None:
    found = resolved({"cluster_secret": Given("sesame", "environment OTHER")})
    assert found.settings.cluster_secret == "sesame"


def test_the_secret_is_refused_as_a_flag() -> None:
    with pytest.raises(AssertionError, match="no flag"):
        resolved({"cluster_secret": "sesame"})


def test_the_secret_is_refused_in_the_file_and_not_shown() -> None:
    error = refusal(file={"cluster_secret": "sesame"})
    assert "cluster_secret_file" in error.hint
    assert "sesame" not in error.message + error.hint


@pytest.mark.parametrize(
    ("environ", "texts", "part"),
    [
        ({}, {}, "No such file"),
        ({}, {"/s": " \n"}, "is empty"),
        ({}, {"/s": "ses\name"}, "control character"),
        ({"TIERCE_CLUSTER_SECRET": "sesame"}, {"/s": "sesame"}, "set twice"),
    ],
)
def test_a_secret_file_that_does_not_do_is_refused(
    environ: dict[str, str], texts: dict[str, str], part: str
) -> None:
    error = refusal({"cluster_secret_file": "/s"}, environ, texts=texts)
    assert part in error.message
    assert "cluster_secret" in error.message
    assert "sesame" not in error.message + error.hint


def test_secrets_are_not_in_what_is_shown_or_printed() -> None:
    token = Token.of("backup", frozenset({Right.READ}), "tierce_x")
    settings = Settings(cluster_secret="sesame", tokens=(token,))
    for text in (repr(settings), str(shown(settings)), repr(Given("sesame", "x"))):
        assert "sesame" not in text
        assert token.sha256.hex() not in text
    assert shown(settings)["cluster_secret"] == "set"
    assert shown(Settings())["cluster_secret"] == "not set"
    assert shown(settings)["tokens"] == f"backup:read:sha256-{token.sha256.hex()[:8]}…"


# The table, and the way to other processes


def test_every_field_is_in_the_table_with_a_sentence_of_help() -> None:
    assert list(SETTINGS) == [field.name for field in fields(Settings)]
    assert all(each.help[0].isupper() and each.help[-1] == "." for each in SETTINGS.values())


@pytest.mark.parametrize("name", [n for n in SETTINGS if n.endswith(("_bytes", "_seconds"))])
def test_help_names_the_unit(name: str) -> None:
    assert f"in {name.rpartition('_')[2]}" in SETTINGS[name].help


@pytest.mark.parametrize("name", [n for n, s in SETTINGS.items() if not s.secret])
def test_shown_text_of_a_default_is_read_back(name: str) -> None:
    kind, default = SETTINGS[name].kind, getattr(Settings(), name)
    text = kind.show(default)
    assert (
        kind.parse(text.split(",") if kind.many and text else () if kind.many else text) == default
    )


def test_defaults_survive_the_pipe() -> None:
    assert from_json(to_json(Settings())) == Settings()


def test_settings_survive_the_pipe_with_their_secrets() -> None:
    settings = Settings(
        data=Path("/srv/dæta"),
        node_id="ü",
        listen=(Listen("cask", "::1", 0),),
        workers=7,
        reserve_bytes=(1 << 63) - 1,
        progress_window_seconds=0.1,
        log_format="json",
        tls_certificate=Path("c"),
        tls_key=Path("k"),
        tokens=(Token.of("a", ALL_RIGHTS, "t"), Token.of("b", frozenset({Right.READ}), "u")),
        anonymous_rights=frozenset(),
        replication=2,
        max_replication=3,
        cluster_secret='se"same\\',
        private=Listen("private", "::1", 0),
        advertise="h:1",
        join=("http://a", "b:1"),
        discover=True,
        zone="z",
        weight=0.5,
        ring_points=16,
        down_grace_seconds=0.5,
        heal_bytes_per_second=0,
    )
    back = from_json(to_json(settings))
    assert back == settings
    assert isinstance(back.data, Path)
    assert isinstance(back.listen[0], Listen)
    assert isinstance(back.private, Listen)
    assert isinstance(back.tokens[0], Token)
