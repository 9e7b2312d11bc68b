# A weights folder as an image, for weights.source: image. Context: the folder; it must hold a parley.json.
ARG BASE=parley-tools:0.1.0
FROM ${BASE}
COPY . /opt/parley/weights
