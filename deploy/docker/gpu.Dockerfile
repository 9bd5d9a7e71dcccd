# The image of a Ray node: head, learner, rollout and teacher on GPUs (gpu.lock). The same file makes the image of env
# nodes (LOCK=deploy/docker/env.lock, without torch and vLLM) and one without GPUs (LOCK=deploy/docker/cpu.lock).
# Built from the root of the repository by deploy/docker/build_node.sh.
#   BASE  Debian 12; deploy/docker/make_base.sh makes one without a registry
#   LOCK  exact pins of every package
ARG BASE=debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171

FROM ${BASE} AS build
ARG LOCK=deploy/docker/gpu.lock
ARG PIP_FIND_LINKS
ARG PIP_EXTRA_INDEX_URL
ARG PIP_NO_INDEX
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/sdpo
COPY ${LOCK} /src/packages.lock
RUN /opt/sdpo/bin/pip install --quiet --no-deps --no-compile -r /src/packages.lock
COPY pyproject.toml README.md LICENSE /src/
COPY sdpo /src/sdpo
COPY rollout_workers /src/rollout_workers
COPY env_workers /src/env_workers
COPY learner /src/learner
COPY orchestrator /src/orchestrator
# Remove what only a build or a test needs: pip itself, tests of packages. Keep bytecode, because Ray starts a dozen
# processes on a node and gives them seconds, and the headers of torch, which it compiles against at run time.
RUN /opt/sdpo/bin/pip install --quiet --no-deps --no-compile --no-build-isolation /src \
    && site=$(/opt/sdpo/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
    && find "$site" -type d -name tests -prune -exec rm -rf {} + \
    && rm -rf "$site"/torch/share "$site"/torch/test "$site"/ray/cpp \
    && /opt/sdpo/bin/python -m pip uninstall --quiet --yes pip \
    && { /opt/sdpo/bin/python -m compileall -q -j 0 "$site" || true; } # files for other Pythons do not compile

FROM ${BASE}
# gcc and python3-dev: Triton compiles its launchers at run time. wget: KubeRay's probes. bubblewrap: the sandbox.
ARG SYSTEM="gcc libc6-dev python3-dev"
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap ca-certificates procps python3 wget ${SYSTEM} \
    && rm -rf /var/lib/apt/lists/* \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && useradd --uid 1000 --create-home --shell /bin/bash sdpo \
    && install -d -o 1000 -g 1000 /runs /models /data
COPY --from=build /opt/sdpo /opt/sdpo
ENV PATH=/opt/sdpo/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 VIRTUAL_ENV=/opt/sdpo
USER 1000:1000
WORKDIR /home/sdpo
ENTRYPOINT []
CMD ["sdpo", "--help"]
