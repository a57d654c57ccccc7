"""The supervisor process: it spawns, reaps, reloads and drains, and holds every listening socket.

Synchronous and small: one `selectors` loop over the signal wake-up descriptor, the children's pidfds, the wire and the
control socket. It never runs trio, never parses a byte from the network, and knows tiers only as values.
"""
