"""Ray's token: `ray.init` finds it by itself, Ray's other clients must be told to use it."""

import logging


def use_token() -> None:
    """Have Ray's clients in this process show the token (RAY_AUTH_TOKEN, or ~/.ray/auth_token), if there is one.

    Where RAY_AUTH_MODE is set, it decides.
    """
    from ray._private.authentication import authentication_token_setup as setup

    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it tells everybody that a token is used
    setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def auth_headers() -> dict[str, str]:
    """For requests to Ray's dashboard; {} without a token."""
    from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled

    use_token()
    headers: dict[str, str] = get_auth_headers_if_auth_enabled({})
    return headers
