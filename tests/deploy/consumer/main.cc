// The smallest user of the installed client library: asks for a session where no daemon is, and
// succeeds when it gets an error and not a hang.
#include <chrono>
#include <cstdio>

#include "client/session.h"

int main() {
  kvasir::ConnectOptions options;
  options.control_socket = "/nonexistent/control.sock";
  options.data_socket = "/nonexistent/data.sock";
  options.deadline = std::chrono::milliseconds(2000);
  const auto session = kvasir::Session::Connect(options);
  if (session.ok()) {
    std::fprintf(stderr, "connected to a daemon that is not there\n");
    return 1;
  }
  std::printf("consumer: %s\n", session.status().ToString().c_str());
  return 0;
}
