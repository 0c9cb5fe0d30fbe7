"""The HTTP side: API, live streams and the dashboard."""
