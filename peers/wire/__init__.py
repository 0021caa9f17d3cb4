"""How bytes travel: Noise, handshake, session, chunks, rpc. Sans-IO: bytes in, events out."""
