"""The HTTP surface: routes, bodies, schemas, problems."""
