"""ShrinkFace, the face identification service.

Levels, lowest first: contract, domain, ports and settings, adapters, use cases, wiring, API, command line.
"""
