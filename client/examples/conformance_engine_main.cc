// kvasir-conformance-engine: an engine that kvasir-conformance finds nothing wrong with.
//   kvasir-conformance --engine kvasir-conformance-engine
#include <iostream>

#include "client/examples/toy_transformer.h"

int main() {
  kvasir::examples::ToyModel model(kvasir::examples::AttendLayer);
  kvasir::examples::ConformanceEngine engine(kvasir::examples::OptionsOfEnvironment(), model);
  engine.Serve(std::cin, std::cout);
  return 0;
}
