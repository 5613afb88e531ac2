"""NETCONF servers of emulated devices: YANG schema, edit-config, datastores, sessions."""
