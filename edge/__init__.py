"""The edge: layer 4 load balancing of TCP connections and UDP sessions. It looks at no more than the first bytes."""
