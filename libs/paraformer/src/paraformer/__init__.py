"""Paraformer-online: streaming front end and SANM encoder of a FunASR folder."""
