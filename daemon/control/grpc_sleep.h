// gRPC's threads for callbacks (1.51) sleep for 100 ms, by the wall clock, whenever a poll of
// theirs ends without an event, and both of them at once stop every call for so long; after a jump
// back of that clock they would sleep until it has come again
// (tests/integration/clock_jump_test.cc). The function that they call is here instead of in libgpr,
// which nothing else of a server calls.
#ifndef KVASIR_DAEMON_CONTROL_GRPC_SLEEP_H_
#define KVASIR_DAEMON_CONTROL_GRPC_SLEEP_H_

namespace kvasir {

// From now on no sleep of gRPC's in this process takes longer than 1 ms.
void BoundGrpcSleep();

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_GRPC_SLEEP_H_
