"""The package http, of which client and server are on sockets of the daemon."""

from http import *  # noqa: F403
