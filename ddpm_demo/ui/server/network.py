"""The server's address: is it free, how can phones reach it, how does the server reach itself?"""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, getproxies_environment

from ddpm_demo.config import SettingError, number

PORT_MAX = 65_535
ALL = ("0.0.0.0", "::", "")  # hosts that stand for all addresses of this machine
OWN = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::")


def bare(host: str) -> str:
    """An address without the brackets around IPv6 in links."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def written(host: str) -> str:
    """A host as links write it, with IPv6 in brackets."""
    host = bare(host)
    return f"[{host}]" if ":" in host else host


def is_here(host: str) -> bool:
    """True if only this machine can reach a server with this host."""
    host = bare(host)
    return host in ("localhost", "::1") or host.startswith("127.") or host.endswith(".localhost")


def for_phones(page: str, host: str, shared: str = "") -> list[str]:
    """Addresses of the app that phones can reach, the likeliest first. None is a loopback.

    Args:
        page: the address of the app in the browser that asks.
        host: the host that the server listens on.
        shared: its public address, if it has one.

    Raises:
        ValueError: there are no such addresses, or the page has none. The message says what helps.
    """
    try:
        parts = urlsplit(page)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("The page has no address that could be shown.")
    seen, path = parts.hostname, parts.path.rstrip("/")
    found = [shared.rstrip("/")] if shared else []
    if not is_here(seen) and seen not in ALL:
        found.append(f"{parts.scheme}://{parts.netloc}{path}")
    own = _own_addresses()
    if is_here(seen) or seen in ALL or seen in own:  # else it is a proxy on another machine
        reached = own if bare(host) in ALL else [] if is_here(host) else [bare(host)]
        end = f":{port}" if port else ""
        found += [f"{parts.scheme}://{written(one)}{end}{path}" for one in reached]
    if not found and is_here(host):
        raise ValueError(
            "Phones can't reach this server: stop it, and start it with --host 0.0.0.0, or by "
            "`make demo HOST=0.0.0.0`."
        )
    if not found:
        raise ValueError("This machine is on no network: join one, or make it a hot spot.")
    return list(dict.fromkeys(found))


def _own_addresses() -> list[str]:
    """The IPv4 addresses of this machine. Those in home networks and hot spots come first."""
    import ifaddr

    found = [
        ip_address(str(one.ip)) for card in ifaddr.get_adapters() for one in card.ips if one.is_IPv4
    ]
    usable = [one for one in found if not one.is_loopback and not one.is_link_local]
    order = ("192.168.", "10.")
    rank = {
        one: next((k for k, o in enumerate(order) if str(one).startswith(o)), 9) for one in usable
    }
    return [str(one) for one in sorted(usable, key=lambda one: rank[one])]


def require_free(host: str, port: int) -> None:
    """Check, before the server is built, that it can listen on this address.

    Raises:
        ValueError: it can't. The message is one sentence that names the option.
    """
    number("--port", port, 1, PORT_MAX, whole=True)
    try:
        options = socket.getaddrinfo(
            bare(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError):
        raise ValueError(
            f"--host must be an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all "
            f"of them, not {host!r}."
        ) from None
    # Whatever the host is, Gradio also tries 127.0.0.1.
    loopback = (socket.AF_INET, ("127.0.0.1", port))
    for family, address in (*((o[0], o[4]) for o in options[:1]), loopback):
        _try(family, address, host, port)


def _try(family: int, address: tuple[object, ...], host: str, port: int) -> None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            if os.name == "posix":  # on Windows, the option would let two programs share a port
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
            tried.listen(1)
    except PermissionError:
        raise ValueError(
            f"--port must be 1,024 or more, not {port}, which needs an administrator's rights."
        ) from None
    except OverflowError:
        raise SettingError("--port", port, f"up to {PORT_MAX:,}") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"Port {port} is taken by another program: choose another one by --port."
            ) from None
        raise ValueError(
            f"--host is {host!r}, where this machine can't listen ({error.strerror or error})."
        ) from None


def require_proxies() -> None:
    """Check the proxies in the environment, because `import gradio` makes a client with them.

    Raises:
        ValueError: a proxy can't be used.
    """
    if not getproxies():
        return
    import httpx

    try:
        httpx.Client().close()
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ValueError(
            f"The environment names a proxy that can't be used ({error}). Allowed in HTTP_PROXY, "
            "HTTPS_PROXY and ALL_PROXY are addresses like http://HOST:PORT or socks5://HOST:PORT."
        ) from None


def ask_own_address_directly(host: str) -> None:
    """Let this process reach its own address without a proxy.

    Gradio sends requests to its own server at the start. Other addresses keep their proxies.
    """
    proxies = getproxies_environment()
    if not set(proxies) - {"no"}:
        return  # the environment names no proxy; exceptions in it would hide the system's proxies
    told = [name for name in proxies.get("no", "").split(",") if name.strip()]
    if "*" in [name.strip() for name in told]:
        return  # no address has a proxy; with more names after "*", some libraries ignore it
    names = [*told, *OWN, *([bare(host)] if bare(host) not in OWN else [])]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(names)
