"""The constellation on this machine: one process a service, one small supervisor.

Needs the ``local`` extra of the distribution; nothing here is imported by the SDK.
"""
