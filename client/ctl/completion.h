// The completion script of bash: deploy/completion/kvasirctl.bash, built into the program.
#ifndef KVASIR_CLIENT_CTL_COMPLETION_H_
#define KVASIR_CLIENT_CTL_COMPLETION_H_

#include <string_view>

namespace kvasir::ctl {

extern const std::string_view kBashCompletion;

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_COMPLETION_H_
