// kvasirctl: the operator's tool. Exit codes: 0 done, 1 failed, 2 wrong usage.
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "client/ctl/commands.h"

int main(int argc, char** argv) {
  kvasir::ctl::Surroundings surroundings;
  if (const char* socket = std::getenv("KVASIR_CONTROL_SOCKET")) surroundings.socket = socket;
  surroundings.terminal = ::isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
  surroundings.live = ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  return kvasir::ctl::RunKvasirctl(arguments, surroundings, std::cout, std::cerr);
}
