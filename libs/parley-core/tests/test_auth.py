import time

import jwt
import pytest
from parley_core.auth import Authenticator
from parley_core.errors import InvalidArgument, ParleyError, Unauthenticated
from parley_core.settings import AuthSettings, JwtSettings, SettingsError

pytestmark = pytest.mark.unit

SECRET = "a secret of at least thirty-two bytes"


def token(secret=SECRET, algorithm="HS256", **claims):
    return jwt.encode({"exp": time.time() + 3600, "sub": "acme", **claims}, secret, algorithm)


def by_jwt(**settings):
    section = JwtSettings(secret=SECRET, algorithms=("HS256",), **settings)
    return Authenticator(AuthSettings(jwt=section))


def refusal(authenticator, metadata):
    with pytest.raises(ParleyError) as caught:
        authenticator.authenticate(metadata)
    return type(caught.value), caught.value.reason


def test_nothing_configured_lets_everyone_in_under_the_tenant_they_pass_on():
    authenticator = Authenticator(AuthSettings())
    assert not authenticator.enabled
    assert authenticator.authenticate({}).tenant == "default"
    assert authenticator.authenticate({"x-parley-tenant": "acme"}).tenant == "acme"
    assert refusal(authenticator, {"x-parley-tenant": "a b\n"}) == (
        InvalidArgument, "TENANT_MALFORMED",
    )  # fmt: skip


@pytest.mark.parametrize("metadata", [{"authorization": "Bearer k1"}, {"x-api-key": "k1"}])
def test_an_api_key_names_its_tenant(metadata):
    principal = Authenticator(AuthSettings(api_keys={"acme": "k1"})).authenticate(
        {**metadata, "x-parley-tenant": "somebody-else"}
    )
    assert (principal.tenant, principal.method) == ("acme", "api_key")


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({}, "CREDENTIALS_MISSING"),
        ({"authorization": "Basic k1"}, "CREDENTIALS_MISSING"),
        ({"authorization": "Bearer "}, "CREDENTIALS_MISSING"),
        ({"authorization": "Bearer nope"}, "CREDENTIALS_INVALID"),
        ({"authorization": "Bearer n\udcf6pe"}, "CREDENTIALS_INVALID"),
    ],
)
def test_no_or_wrong_keys_are_refused(metadata, reason):
    authenticator = Authenticator(AuthSettings(api_keys={"acme": "k1"}))
    assert refusal(authenticator, metadata) == (Unauthenticated, reason)


def test_keys_come_from_a_file(tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text("acme: k1\nother: k2\n")
    authenticator = Authenticator(AuthSettings(api_keys_file=file))
    assert authenticator.authenticate({"x-api-key": "k2"}).tenant == "other"


@pytest.mark.parametrize(
    "text",
    [b"- k1\n", b"acme: 3\n", b"a: [\n", b"acme: k\xff\n", b"acme: 2024-13-45\n", b"", b"{}\n"],
)
def test_a_broken_or_empty_key_file_refuses_to_start(tmp_path, text):
    file = tmp_path / "keys.yaml"
    file.write_bytes(text)
    with pytest.raises(SettingsError, match="api_keys_file"):
        Authenticator(AuthSettings(api_keys_file=file))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"acme": ""}, "the key of acme is empty"),
        ({"acme": " "}, "the key of acme is empty"),
        ({"acme": "k1", "other": "k1"}, "acme and other have the same key"),
    ],
)
def test_a_key_that_names_no_one_tenant_refuses_to_start(keys, told):
    with pytest.raises(SettingsError, match=told) as caught:
        Authenticator(AuthSettings(api_keys=keys))
    assert "k1" not in str(caught.value)


def test_a_jwt_names_its_tenant():
    principal = by_jwt(tenant_claim="org", issuer="us", audience="parley").authenticate(
        {"authorization": f"Bearer {token(org='acme', iss='us', aud='parley')}"}
    )
    assert (principal.tenant, principal.method) == ("acme", "jwt")


@pytest.mark.parametrize(
    ("bearer", "reason"),
    [
        (token(exp=time.time() - 60), "CREDENTIALS_EXPIRED"),
        (token(secret="another secret of thirty-two bytes!!"), "CREDENTIALS_INVALID"),
        (token(iss="them"), "CREDENTIALS_INVALID"),
        (token(sub=""), "CREDENTIALS_INVALID"),
        (token(sub="auth0|1"), "CREDENTIALS_INVALID"),
        (jwt.encode({"sub": "acme", "iss": "us"}, SECRET, "HS256"), "CREDENTIALS_INVALID"),
        (jwt.encode({"sub": "acme", "iss": "us"}, None, "none"), "CREDENTIALS_INVALID"),
    ],
)
def test_tokens_that_do_not_hold_are_refused(bearer, reason):
    claims_issuer = by_jwt(issuer="us") if reason == "CREDENTIALS_INVALID" else by_jwt()
    assert refusal(claims_issuer, {"authorization": f"Bearer {bearer}"}) == (
        Unauthenticated, reason,
    )  # fmt: skip


def test_a_public_key_checks_tokens_of_its_pair(tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    file = tmp_path / "public.pem"
    file.write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    authenticator = Authenticator(AuthSettings(jwt=JwtSettings(public_key_file=file)))
    signed = token(secret=private, algorithm="ES256")
    assert authenticator.authenticate({"authorization": f"Bearer {signed}"}).tenant == "acme"
    # The classic confusion: the public key used as an HMAC secret.
    assert (
        refusal(authenticator, {"authorization": f"Bearer {token()}"})[1] == "CREDENTIALS_INVALID"
    )


@pytest.mark.parametrize("form", ["words", "bytes", "private", "other"])
def test_what_is_no_public_key_of_the_algorithms_refuses_to_start(tmp_path, form):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    encoding = serialization.Encoding.PEM
    private = ec.generate_private_key(ec.SECP256R1())
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    file = tmp_path / "public.pem"
    file.write_bytes(
        {
            "words": b"the key of acme",
            "bytes": b"\xff\xfe",
            "private": private.private_bytes(
                encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            "other": other.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo),
        }[form]
    )
    with pytest.raises(SettingsError, match="public_key_file"):
        Authenticator(AuthSettings(jwt=JwtSettings(public_key_file=file)))


@pytest.mark.parametrize("tenant", ["", "a/b", "auth0|1", "a" * 65])
def test_a_key_of_what_is_no_tenant_refuses_to_start(tenant):
    with pytest.raises(SettingsError, match="A-Z a-z 0-9"):
        Authenticator(AuthSettings(api_keys={tenant: "k1"}))
