"""The thing that touches the driver: small, obedient and expendable, speaking frames over a pipe."""
