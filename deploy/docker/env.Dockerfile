# The image of the docker and gvisor sandboxes: Python 3.11 or newer and nothing else. The runner is sent in by the env
# worker, so the image need not change with the code. Programs may import what its Python does: docs/images.md adds packages.
#   BASE  any image with Python 3.11+; deploy/docker/make_base.sh makes one without a registry
ARG BASE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
FROM ${BASE}
RUN python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this base has {sys.version}")' \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
USER 65534:65534
WORKDIR /
ENTRYPOINT []
CMD ["python3"]
