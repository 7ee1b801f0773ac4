"""Support functions against literal loops."""
