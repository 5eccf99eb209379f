// What kvasir-conformance does once its command line is parsed.
#ifndef KVASIR_CLIENT_CONFORMANCE_PROGRAM_H_
#define KVASIR_CLIENT_CONFORMANCE_PROGRAM_H_

#include <ostream>
#include <string>
#include <vector>

#include "client/conformance/check.h"

namespace kvasir::conformance {

struct ProgramOptions {
  Settings settings;
  std::vector<std::string> only;  // names of checks; empty: all
  bool json = false;              // one object a line
};

// Runs the checks in their order; a line each to `out`. 0: none failed; 1: one has; 2: no check of
// such a name.
int RunProgram(const ProgramOptions& options, std::ostream& out, std::ostream& errors);

// The checks, their sections of the guide and what each needs, for --list.
void ListChecks(std::ostream& out);

}  // namespace kvasir::conformance

#endif  // KVASIR_CLIENT_CONFORMANCE_PROGRAM_H_
