"""KX1 a second time, written from abi/PROTOCOL.md and the documents it names alone.

It is for comparison, not for use: it wipes nothing and is slow. Where this and the Go code
differ, one of them or the text is wrong.
"""
