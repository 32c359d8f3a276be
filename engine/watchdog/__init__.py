"""Heartbeats between ranks: no hang without a report, no rank left behind."""
