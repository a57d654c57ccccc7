"""The edge before a gateway, as a load balancer stands before one: clients connect to the edge, which passes their
bytes on to the gateway's listener, and tells it by a PROXY header who they are."""

from supervisor.cli.demo.credentials import Certificate


def shows(certificate: Certificate) -> str:
    """The line by which a listener speaks TLS with this certificate."""
    return f'tls = {{ certificates = [{{ cert = "{certificate.cert}", key = "{certificate.key}" }}] }}'


def behind_edge(name: str, bind: str, inner: str, *settings: str) -> str:
    """Tables for a listener `name` that clients reach at `bind`, by way of the edge; the gateway's own is at `inner`,
    with these lines of its table besides."""
    lines = "\n".join(settings)
    return f"""
[pools.gateway_{name}]
servers = ["{inner}"]
[edge.listeners.{name}]
bind = "{bind}"
pool = "gateway_{name}"
send_proxy_protocol = "v2"
[gateway.listeners.{name}]
bind = "{inner}"
accept_proxy_protocol = ["127.0.0.0/8"]
{lines}
"""
