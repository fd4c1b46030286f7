"""Shared helpers (files, messages, configuration, device, plotting). No promise to users."""
