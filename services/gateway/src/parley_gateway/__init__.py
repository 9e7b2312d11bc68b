"""The gateway: Parley's public API, which composes the stages into answers and conversations.

Contract: no stage knows another, the gateway joins them. What one question goes through is told in
`ask`, what a conversation goes through in `session`; when a turn begins and ends is decided in
`turns`, which is pure. Not for running models, save the small one that hears whether anyone speaks.
"""
