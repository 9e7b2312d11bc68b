"""When a turn begins, ends and is answered: pure decisions, without I/O, clock or asyncio."""
