"""The web console at `/`: one page that talks to the HTTP API of its own origin. It holds no data and needs no key."""
