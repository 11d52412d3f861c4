"""The settings: what is taken, what is refused, and that no error tells a secret."""

import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, names

KEY = bytes(range(32))
OTHER = bytes(range(100, 132))


def load(**environ: str) -> Settings:
    return Settings.load(environ, env_file=None)


def refused(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(**environ)
    for line in caught.value.lines:
        assert "\n" not in line
    return caught.value.lines


def test_without_any_setting_the_defaults_of_the_contract_hold() -> None:
    settings = load()
    assert settings.database_url == "sqlite:///fluxgate.db"
    assert settings.storage_url == "file:./artifacts"
    assert (settings.public_url, settings.bootstrap_key, settings.poll_after_s) == (None, None, None)
    assert (settings.secret_keys, settings.egress_allow) == ([], [])
    assert (settings.uncertain_s, settings.lease_s) == (120, 15)
    assert (settings.log_format, settings.metrics_open) == (None, False)
    assert (settings.fal_key, settings.bfl_api_key) == (None, None)
    assert settings.fal_jwks_url == "https://rest.fal.ai/.well-known/jwks.json"
    assert settings.bfl_url == "https://api.bfl.ai"
    assert (settings.url, settings.api_key) == ("http://127.0.0.1:8080", None)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("FLUXGATE_DATABSE_URL", "FLUXGATE_DATABASE_URL"),
        ("FLUXGATE_POLL_AFTER", "FLUXGATE_POLL_AFTER_S"),
        ("FLUXGATE_FAL_KEY", "FAL_KEY"),
        ("fluxgate_public_url", "FLUXGATE_PUBLIC_URL"),
    ],
)
def test_an_unknown_name_is_refused_and_the_nearest_one_named(name: str, nearest: str) -> None:
    (line,) = refused(**{name: "s3cret"})
    assert line == f"{name} is not a setting: did you mean {nearest}?"


def test_names_of_others_are_nobodys_business() -> None:
    assert load(PATH="/bin", HOME="/nowhere", GATE="x") == load()


@pytest.mark.parametrize(
    ("name", "value", "must"),
    [
        ("FLUXGATE_DATABASE_URL", "mysql://s3cret@host/db", "sqlite:/// or postgresql://"),
        ("FLUXGATE_DATABASE_URL", "postgresql+psycopg://s3cret@host/db", "the service picks the driver"),
        ("FLUXGATE_DATABASE_URL", "postgresql://u:s3cret@host:port/db", "a number for the port"),
        ("FLUXGATE_DATABASE_URL", "sqlite://", "must name a file"),
        ("FLUXGATE_DATABASE_URL", "sqlite:///:memory:", "must name a file"),
        ("FLUXGATE_DATABASE_URL", "sqlite:///a.db?s3cret=1", "must name a file"),
        ("FLUXGATE_PUBLIC_URL", "s3cret.example", "begins with https:// or http://"),
        ("FLUXGATE_PUBLIC_URL", "https://u:s3cret@gate.example", "without a user name or password"),
        ("FLUXGATE_PUBLIC_URL", "https://gate.example/?s3cret=1", "without ? and #"),
        ("FLUXGATE_PUBLIC_URL", "https://gate.example:s3cret", "begins with https:// or http://"),
        ("FLUXGATE_BOOTSTRAP_KEY", "s3cret" * 3, "at least 24 printable"),
        ("FLUXGATE_BOOTSTRAP_KEY", "s3cret s3cret s3cret s3cret", "at least 24 printable"),
        ("FLUXGATE_API_KEY", "s3cret key", "as 'fluxgate keys create' shows it"),
        ("FLUXGATE_URL", "s3cret.example", "begins with https:// or http://"),
        ("FLUXGATE_SECRET_KEYS", "s3cret", "32 bytes in base64"),
        ("FLUXGATE_SECRET_KEYS", base64.b64encode(KEY).decode() + ",", "32 bytes in base64"),
        ("FLUXGATE_SECRET_KEYS", ",".join([base64.b64encode(KEY).decode()] * 2), "same key twice"),
        ("FLUXGATE_EGRESS_ALLOW", "10.0.0.1/8", "comma-separated CIDRs"),
        ("FLUXGATE_EGRESS_ALLOW", "s3cret", "comma-separated CIDRs"),
        ("FLUXGATE_STORAGE_URL", "s3://s3cret/prefix", "cannot name an S3 bucket yet"),
        ("FLUXGATE_STORAGE_URL", "./s3cret", "file:FOLDER"),
        ("FLUXGATE_STORAGE_URL", "file:", "file:FOLDER"),
        ("FLUXGATE_STORAGE_URL", "file://s3cret/folder", "file:FOLDER"),
        ("FLUXGATE_POLL_AFTER_S", "s3cret", "a number of seconds from 0 to 86400"),
        ("FLUXGATE_POLL_AFTER_S", "nan", "a number of seconds"),
        ("FLUXGATE_POLL_AFTER_S", "-1", "a number of seconds"),
        ("FLUXGATE_UNCERTAIN_S", "0", "a number of seconds from 0.1 to 86400"),
        ("FLUXGATE_LEASE_S", "1e9", "a number of seconds from 0.5 to 3600"),
        ("FLUXGATE_LOG_FORMAT", "s3cret", "must be console or json"),
        ("FLUXGATE_METRICS_OPEN", "s3cret", "must be 0 or 1"),
        ("FLUXGATE_BFL_URL", "ftp://s3cret", "begins with https:// or http://"),
        ("FAL_KEY", "s3cret\nvalue", "printable ASCII without spaces"),
        ("BFL_API_KEY", "schlüssel", "printable ASCII without spaces"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_does_not_tell_it(name: str, value: str, must: str) -> None:
    (line,) = refused(**{name: value})
    assert line.startswith(f"{name} ")
    assert must in line
    assert "s3cret" not in line
    assert len(value) < 12 or value not in line


def test_everything_that_is_wrong_is_said_at_once() -> None:
    lines = refused(FLUXGATE_LEASE="3", FLUXGATE_LEASE_S="x", FLUXGATE_METRICS_OPEN="x")
    assert [line.split()[0] for line in lines] == [
        "FLUXGATE_LEASE",
        "FLUXGATE_LEASE_S",
        "FLUXGATE_METRICS_OPEN",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///fluxgate.db",
        "sqlite:////var/lib/fluxgate.db",
        "postgresql://user:password@host:5432/db",
        "postgres://host/db",
        "postgresql://postgres@/db?host=/tmp/socket",
    ],
)
def test_both_databases_can_be_named(url: str) -> None:
    assert load(FLUXGATE_DATABASE_URL=url).database_url == url


def test_a_trailing_slash_of_a_url_is_dropped() -> None:
    assert load(FLUXGATE_PUBLIC_URL="https://gate.example/base/").public_url == "https://gate.example/base"
    assert load(FLUXGATE_BFL_URL="http://127.0.0.1:9090/bfl/").bfl_url == "http://127.0.0.1:9090/bfl"


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padded", [True, False])
def test_secret_keys_are_read_in_either_alphabet_with_or_without_padding(
    encode: Callable[[bytes], bytes], padded: bool
) -> None:
    texts = [encode(key).decode() for key in (OTHER, KEY)]
    joined = ", ".join(text if padded else text.rstrip("=") for text in texts)
    assert load(FLUXGATE_SECRET_KEYS=joined).secret_keys == [OTHER, KEY]


def test_networks_are_read_with_and_without_a_length() -> None:
    settings = load(FLUXGATE_EGRESS_ALLOW="127.0.0.1, 10.0.0.0/8,::1/128")
    assert [str(network) for network in settings.egress_allow] == ["127.0.0.1/32", "10.0.0.0/8", "::1/128"]


def test_an_empty_variable_is_the_same_as_none() -> None:
    assert load(FLUXGATE_PUBLIC_URL="", FAL_KEY="", FLUXGATE_LEASE_S="") == load()


def test_the_line_end_of_a_secret_file_is_not_part_of_the_key() -> None:
    key = load(FAL_KEY="id:value\n").fal_key
    assert key is not None
    assert key.get_secret_value() == "id:value"


def test_secrets_do_not_show_when_settings_are_printed() -> None:
    settings = load(
        FAL_KEY="s3cret-fal",
        BFL_API_KEY="s3cret-bfl",
        FLUXGATE_BOOTSTRAP_KEY="s3cret-s3cret-s3cret-s3cret",
        FLUXGATE_DATABASE_URL="postgresql://user:s3cret@host/db",
        FLUXGATE_SECRET_KEYS=base64.b64encode(KEY).decode(),
    )
    assert "s3cret" not in f"{settings!r} {settings}"
    assert repr(KEY) not in repr(settings)


def test_settings_do_not_change_once_they_are_read() -> None:
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.public_url = "https://other.example"  # type: ignore[misc]


def test_the_file_in_the_working_folder_is_read_and_the_environment_is_stronger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text("FLUXGATE_LEASE_S=7\nFLUXGATE_UNCERTAIN_S=9\nPORT=1\nFAL_KEY='a$b${HOME}'\n")
    monkeypatch.setenv("FLUXGATE_LEASE_S", "8")
    settings = Settings.load()
    assert (settings.lease_s, settings.uncertain_s) == (8, 9)
    assert settings.fal_key is not None
    assert settings.fal_key.get_secret_value() == "a$b${HOME}"


def test_an_unknown_name_in_the_file_is_refused_too() -> None:
    Path(".env").write_text("FLUXGATE_LEASES=7\n")
    with pytest.raises(
        SettingsError, match="FLUXGATE_LEASES is not a setting: did you mean FLUXGATE_LEASE_S"
    ):
        Settings.load({})


def test_a_file_that_cannot_be_read_is_said() -> None:
    Path(".env").write_bytes(b"FAL_KEY=\xff\xfe\n")
    with pytest.raises(SettingsError, match="cannot be read: it is not UTF-8"):
        Settings.load({})


def test_without_arguments_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [name for name in os.environ if name.startswith("FLUXGATE_")]
    monkeypatch.setenv("FLUXGATE_METRICS_OPEN", "1")
    assert Settings.load().metrics_open


def test_every_name_of_the_contract_is_read() -> None:
    assert {
        "FLUXGATE_DATABASE_URL", "FLUXGATE_PUBLIC_URL", "FLUXGATE_BOOTSTRAP_KEY", "FLUXGATE_SECRET_KEYS",
        "FLUXGATE_EGRESS_ALLOW", "FLUXGATE_STORAGE_URL", "FLUXGATE_POLL_AFTER_S", "FLUXGATE_UNCERTAIN_S",
        "FLUXGATE_LEASE_S", "FLUXGATE_LOG_FORMAT", "FLUXGATE_METRICS_OPEN", "FAL_KEY", "FLUXGATE_FAL_QUEUE_URL",
        "FLUXGATE_FAL_RUN_URL", "FLUXGATE_FAL_JWKS_URL", "FLUXGATE_FAL_PLATFORM_URL", "FLUXGATE_FAL_USER_ID",
        "BFL_API_KEY", "FLUXGATE_BFL_URL", "REPLICATE_API_TOKEN", "FLUXGATE_REPLICATE_URL", "TOGETHER_API_KEY",
        "FLUXGATE_TOGETHER_URL", "SEGMIND_API_KEY", "FLUXGATE_SEGMIND_URL", "AIMLAPI_API_KEY",
        "FLUXGATE_AIMLAPI_URL",
    } <= set(names())  # fmt: skip
