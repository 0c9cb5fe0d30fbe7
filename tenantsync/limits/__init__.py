"""Requests that the fleet may send: how many in a time, and how many at a time."""
