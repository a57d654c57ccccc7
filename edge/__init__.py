"""The edge: layer 4 load balancing of TCP connections and UDP sessions. It never looks inside what it carries."""
