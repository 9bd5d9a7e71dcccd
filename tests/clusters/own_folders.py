"""Ray's fake provider, but no two nodes share a folder, as if they were machines. The head's monitor imports this file.

A node unpacks a job's working directory anew when its first worker of the job starts; in a folder that nodes share, the
workers of another node would lose their modules meanwhile.
"""

import tempfile
from functools import partial
from typing import Any
from unittest.mock import patch

from ray._private import parameter
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class OwnFolders(FakeMultiNodeProvider):  # type: ignore[misc]
    """The provider's setting `folder` says where the nodes' folders are made."""

    def _create_node_with_resources_and_labels(self, *arguments: Any) -> None:
        folder = tempfile.mkdtemp(prefix="n", dir=self.provider_config["folder"])
        with self.lock, patch.object(parameter, "RayParams", partial(parameter.RayParams, temp_dir=folder)):
            super()._create_node_with_resources_and_labels(*arguments)
