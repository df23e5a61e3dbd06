pytest_plugins = ["trunnion.testing"]
