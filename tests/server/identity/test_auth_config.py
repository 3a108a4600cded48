"""``[auth]``, ``token_file``, ``[certificates]`` and ``authentication`` in the configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remsvc.errors import ConfigurationError
from remsvc.server.config import ServerConfig, check_config, load_config
from remsvc.server.identity.authentication import AuthenticationError, Evidence
from remsvc.server.identity.client_certificates import AlternativeName, parse_alternative_name
from remsvc.server.identity.tokens import digest_of
from tests.contract.certificates import Authority
from tests.copied_tokens import COPIES, NOTHING_BUT


@pytest.fixture
def tls(tmp_path: Path) -> str:
    """``[tls]`` with client authorities."""
    authority = Authority(tmp_path)
    server = authority.issue("server")
    files = f"cert = {server.certificate}\nkey = {server.key}\nca = {authority.certificate}\n"
    return f"[tls]\nenabled = true\n{files}"


def load(tmp_path: Path, text: str) -> ServerConfig:
    path = tmp_path / "server.ini"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def problem(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    (line,) = caught.value.problems
    return line.replace(f"{tmp_path}/", "")


def token_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "tokens"
    path.touch(mode=0o600)
    path.write_text(text)
    return f"[server]\ntoken_file = {path}\n"


def identity(config: ServerConfig, token: str) -> str | None:
    try:
        shown = Evidence.shown([f"Bearer {token}"])
        return config.auth.authenticator().authenticate(shown).identity
    except AuthenticationError:
        return None


def test_a_hash_in_auth_stands_for_its_token(tmp_path: Path) -> None:
    digest = digest_of("secret").hex()
    config = load(tmp_path, f"[auth]\na = sha256:{digest}\nb = plain\n")
    assert [identity(config, token) for token in ("secret", "plain", f"sha256:{digest}", digest)] == [
        "a",
        "b",
        None,
        None,
    ]


@pytest.mark.parametrize(("before", "after"), COPIES)
@pytest.mark.parametrize("kept", ["secret", f"sha256:{digest_of('secret').hex()}"])
def test_what_came_along_with_a_token_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, kept: str
) -> None:
    monkeypatch.setenv("COPIED", before + kept + after)
    config = load(tmp_path, "[auth]\na = $COPIED\n")
    sent = ["secret", before + "secret" + after, "Bearer secret", "secret2", "Bearersecret", ""]
    assert [identity(config, token) for token in sent] == ["a"] * 3 + [None] * 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((text, "expected a token") for text in NOTHING_BUT),
        ("\ufeff\n", "expected a token"),
        ("two\nlines", "expected printable ASCII characters (value not shown)"),
        ("sécret", "expected printable ASCII characters (value not shown)"),
    ],
)
def test_what_is_no_token_is_told_by_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, expected: str
) -> None:
    monkeypatch.setenv("COPIED", value)
    line = problem(tmp_path, "[auth]\na = $COPIED\n")
    assert line == f"server.ini:2: [auth] a (by the variable COPIED): {expected}"


@pytest.mark.parametrize("value", ["sha256:", "sha256:sicret", "sha256:" + "a" * 63, "sha256:" + "g" * 64])
def test_a_hash_that_is_cut_is_no_token(tmp_path: Path, value: str) -> None:
    line = problem(tmp_path, f"[auth]\na = {value}\n")
    assert line == "server.ini:2: [auth] a: expected sha256: and 64 hex digits (value not shown)"


def test_auth_and_the_file_add_up(tmp_path: Path) -> None:
    text = token_file(tmp_path, f"a = sha256:{digest_of('from-file').hex()}\n") + "[auth]\na = from-auth\n"
    config = load(tmp_path, text)
    assert [identity(config, token) for token in ("from-file", "from-auth")] == ["a", "a"]
    assert config.auth.identities == {"a"}


def test_the_same_token_in_both_is_warned_of(tmp_path: Path) -> None:
    text = token_file(tmp_path, f"b = sha256:{digest_of('t').hex()} id=x\n") + "[auth]\na = t\n"
    config = load(tmp_path, text)
    assert identity(config, "t") == "a"
    assert any("without effect" in warning and "x" in warning for warning in config.warnings)


def test_a_file_without_tokens_lets_nobody_in(tmp_path: Path) -> None:
    config = load(tmp_path, token_file(tmp_path, "; none\n"))
    assert config.authenticates
    assert identity(config, "") is None
    assert any("no token that is valid now" in warning for warning in config.warnings)


def test_a_file_with_mistakes_is_a_mistake(tmp_path: Path) -> None:
    line = problem(tmp_path, token_file(tmp_path, "; x\na = sicret\n"))
    assert line.startswith("server.ini:2: [server] token_file = ")
    assert "tokens:2: expected sha256:" in line
    assert "sicret" not in line
    path, _ = check_config(tmp_path / "server.ini")
    assert len(path) == 1


def test_tokens_in_a_file_do_not_travel_in_the_clear_either(tmp_path: Path) -> None:
    text = token_file(tmp_path, f"a = sha256:{digest_of('t').hex()}\n")
    assert "allow_plaintext_tokens" in problem(tmp_path, f"{text}host = 10.0.0.1\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[certificates]\na.example = a\n", "expected [tls] ca"),
        ("[certificates]\n", "expected [tls] ca"),
        ("[server]\nauthentication = token\n", "expected tokens"),
        ("[server]\nauthentication = certificate\n", "expected mutual TLS"),
        ("[server]\nauthentication = both\n[auth]\na = b\n", "expected mutual TLS"),
        ("[server]\nauthentication = none\n", "expected one of any, token, certificate, both"),
    ],
)
def test_what_does_not_fit_together_is_a_mistake(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in problem(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("*.example.org = a", "no wildcard"),
        ("a..org = a", "no wildcard"),
        ("a b = a", "no wildcard"),
        ("spiffe://corp/a b = a", "no wildcard"),
        ("d\u00f6main.example = a", "no wildcard"),
        ("a.example =", "an identity"),
        ("a.example = x y", "without spaces"),
        ("a.example = anonymous", "another identity"),
        ("a.example = a\nA.example = b", "the same name"),
    ],
)
def test_a_mapping_that_is_wrong(tmp_path: Path, tls: str, line: str, expected: str) -> None:
    assert expected in problem(tmp_path, f"{tls}[certificates]\n{line}\n")


def test_a_mapping(tmp_path: Path, tls: str) -> None:
    config = load(tmp_path, f"{tls}[certificates]\nspiffe://corp/a?x=y;z = one\nA.Example.org = two\n")
    assert config.auth.certificates == {
        AlternativeName("URI", "spiffe://corp/a?x=y;z"): "one",
        AlternativeName("DNS", "a.example.org"): "two",
    }
    assert config.auth.identities == {"one", "two"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("spiffe://corp/airflow", "URI"),
        ("urn:uuid:1", "URI"),
        ("a.example.org", "DNS"),
        ("localhost", "DNS"),
        ("ops@example.org", "email"),
        ("@example.org", None),
        ("-a.example", None),
        ("a.example.", None),
        ("", None),
        ("a\0b", None),
        ("spiffe://a\nb", None),
        ("a.example\n", None),
    ],
)
def test_kinds_of_names(text: str, kind: str | None) -> None:
    name = parse_alternative_name(text)
    assert (name.kind if name else None) == kind


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_configuration_that_everybody_can_write_to_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "server.ini"
    path.write_text("")
    path.chmod(0o646)
    assert any("everybody can write to it" in warning for warning in check_config(path)[1])
    path.chmod(0o644)
    assert check_config(path) == ([], [])


def test_optional_client_certificates_need_authorities(tmp_path: Path, tls: str) -> None:
    without_ca = tls.partition("ca = ")[0]
    line = problem(tmp_path, f"{without_ca}client_certificates = optional\n")
    assert line.endswith(
        "client_certificates = optional: expected [tls] ca with it: the authorities that check them"
    )
    assert "expected one of required, optional" in problem(tmp_path, f"{tls}client_certificates = maybe\n")


def test_grpc_cannot_leave_certificates_to_clients(tmp_path: Path, tls: str) -> None:
    line = problem(tmp_path, f"[server]\ntransport = grpc\n{tls}client_certificates = optional\n")
    assert "client_certificates = optional: expected required: with [server] transport = grpc" in line


def test_optional_certificates_authenticate(tmp_path: Path, tls: str) -> None:
    """Also without tokens: who shows no certificate is refused then, so it is safe to listen everywhere."""
    config = load(tmp_path, f"[server]\ntransport = http2\n{tls}client_certificates = optional\n")
    assert config.authenticates
    assert config.host == "0.0.0.0"
    with pytest.raises(AuthenticationError, match="expected a client certificate"):
        config.auth.authenticator().authenticate(Evidence.shown([]))


def test_which_identities_there_are(tmp_path: Path, tls: str) -> None:
    """Asked of a job that waited: could somebody be verified now to be the one who created it?"""
    expired = "[auth]\na = t1\n[server]\ntoken_file = {tokens}\n"
    line = f"c = sha256:{digest_of('t3').hex()} expires=2001-01-01T00:00:00Z\n"
    (tmp_path / "tokens").touch(mode=0o600)
    (tmp_path / "tokens").write_text(line)
    by_token = expired.replace("{tokens}", str(tmp_path / "tokens"))
    named = f"{tls}[certificates]\nDNS:b.example = b\n"
    cases = [
        ("", {"anonymous"}),
        (by_token, {"a"}),
        (tls, {"a", "b", "c", "other", "anonymous"}),  # whom the authorities name is not known
        (named, {"b"}),
        (by_token + tls, {"a"}),
        (by_token + named, {"a", "b"}),
        (by_token.replace("[server]", "[server]\nauthentication = token") + named, {"a"}),
        (by_token.replace("[server]", "[server]\nauthentication = certificate") + named, {"b"}),
        (by_token.replace("[server]", "[server]\nauthentication = both") + named, set()),
        (by_token.replace("[server]", "[server]\nauthentication = both") + tls, {"a"}),
    ]
    for text, there in cases:
        authenticator = load(tmp_path, text).auth.authenticator()
        found = {name for name in ("a", "b", "c", "other", "anonymous") if authenticator.knows(name)}
        assert found == there, text
