"""The kernel as the datapath of a listener: nftables does what needs no look at the bytes, programmed by Portway.

`fit` says what the kernel can serve, `ruleset` what it is told, `conntrack` which of its flows have to go, `service`
the process that does all this. Nothing else of the edge knows of it: the listener's own sockets stay open, and what no
rule takes, the workers serve.
"""
