//! The answer to a valid ping key that may not be used now, from there, or for this monitor.

use actix_web::HttpResponse;
use deadbeat_domain::people::key_limit::KeyFault;

/// Makes the answer: one line that begins with the code of the fault. Only the holder of a valid key gets it.
pub(super) fn limited(fault: KeyFault) -> HttpResponse {
    // Never 401: it would require one of HTTP's own authentication schemes (RFC 9110, 15.5.2), and the key is in the address.
    HttpResponse::Forbidden()
        .content_type("text/plain; charset=utf-8")
        .body(format!("{}: {fault}", fault.code()))
}
