"""The command hrvol that workflows call is forked from a process that has imported everything."""

import flow_data
import pytest
from quick_command import quick_command


@pytest.fixture(scope="session", autouse=True)
def quick(tmp_path_factory):
    with quick_command(tmp_path_factory.mktemp("quick")) as folder:
        flow_data.COMMANDS.insert(0, folder)
        yield folder
        flow_data.COMMANDS.remove(folder)
