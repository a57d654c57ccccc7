"""Peeking: which protocol a connection speaks, and which server of that name it wants, by its first bytes.

Everything here is sans-I/O: bytes in, a verdict out. Whoever reads the bytes keeps them, and sends them on once.
"""
