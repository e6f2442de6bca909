"""A lab of TDX hosts over MQTT 5: agents that take jobs, and the clients that submit and watch them."""
